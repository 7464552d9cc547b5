//! Operations of neural networks.
