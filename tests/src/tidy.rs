//! Checks of style.
/// Runs all.
///
/// # Errors
/// None yet.
pub fn check(_root: &std::path::Path, _metadata: &str) -> crate::Result<Vec<String>> {
    Ok(Vec::new())
}
