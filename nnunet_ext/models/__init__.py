"""Model folders loaded for prediction: members, plans, network, weights, plain copies."""
