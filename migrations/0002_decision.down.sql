DROP FUNCTION IF EXISTS shardyard.decide(text, text[]);
DROP TABLE IF EXISTS shardyard.decision;
