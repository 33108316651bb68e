"""The non-convergence figure (Chapter 6): optimizers on the counterexample, simulated."""
