"""A model folder made ready: members, plans, network, weights, plain copies."""
