"""Members as predictors, how they vote, and the bundle that holds them."""
