//! Operations on tensors: promotion of types, broadcasting, and what devices are asked to do.
