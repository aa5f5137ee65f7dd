"""The shard format: schema, manifest, sidecars, the columns of a shard; shared by writer and reader."""
