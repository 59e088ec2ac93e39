DROP TABLE IF EXISTS shardyard.sequence_set;
DROP FUNCTION IF EXISTS shardyard.unnumbered();
