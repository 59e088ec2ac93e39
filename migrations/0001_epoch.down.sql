DROP TABLE IF EXISTS shardyard.epoch;
