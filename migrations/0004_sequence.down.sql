DROP FUNCTION IF EXISTS shardyard.unnumbered();
