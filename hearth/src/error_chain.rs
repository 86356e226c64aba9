//! An error with its sources: clients of HTTP say "error sending request", and only what is below says why.

use std::error::Error;

/// The text, and those of its causes that it does not say itself.
pub fn error_chain(e: &dyn Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Level(&'static str, #[source] Option<Box<Level>>);

    #[test]
    fn error_chain_says_every_source_once() {
        let root = Level("certificate unknown", None);
        let middle = Level("connect failed: certificate unknown", Some(Box::new(root)));
        let repeated = Level("connect failed: certificate unknown", Some(Box::new(middle)));
        let all = Level("no answer", Some(Box::new(repeated)));
        assert_eq!(error_chain(&all), "no answer: connect failed: certificate unknown");
    }
}
