//! medtech-media-sfu
