"""The way of a mail over Kafka: a feed publishes it raw, parsers answer in any order, one assigner per store takes it."""
