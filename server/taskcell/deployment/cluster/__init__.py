"""A deployment whose servers are pods of one cluster: what they know about each other is in the cluster's API."""
