//! What the walker promises, one literal table at a time.
