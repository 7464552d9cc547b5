//! One conformance suite for every device, a reference device and golden data.
