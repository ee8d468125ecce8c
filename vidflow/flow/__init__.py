"""The mathematics of flow matching: pure functions of arrays. Data lies at t = 1, noise at t = 0."""
