"""From cases on disk to prepared slices, spread over Ray's CPUs."""
