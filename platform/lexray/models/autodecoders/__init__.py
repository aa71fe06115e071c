"""Models of an event list's Poisson rate: `splitnet`, `grid` and `resnet`, with the same files for each."""
