//! How large these tests are.

/// Whether the long sizes are wanted (`make verify`).
pub fn verify() -> bool {
    std::env::var_os("CLAWGATE_VERIFY").is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}
