//! What an answer depends on, told without reading it: so that an answer can be kept until that changes.

use xxhash_rust::xxh3::Xxh3Default;

use super::RollupHints;

/// A read that an answer needs: a range of time (ends included), and which rollups would do.
#[derive(Clone, Debug, Default)]
pub struct Read {
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub rollups: RollupHints,
}

/// Stands for all that a source holds of some reads, whichever series are asked for. Equal marks of equal
/// reads mean equal samples; the same samples may have another mark after a while. Only marks of one program
/// version can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark(u128);

/// Puts together what a [`Mark`] stands for.
#[derive(Clone, Default)]
pub struct MarkBuilder(Xxh3Default);

impl MarkBuilder {
    pub fn number(&mut self, n: u64) -> &mut Self {
        self.0.update(&n.to_le_bytes());
        self
    }

    pub fn time(&mut self, ms: i64) -> &mut Self {
        self.number(ms as u64)
    }

    pub fn name(&mut self, n: u128) -> &mut Self {
        self.0.update(&n.to_le_bytes());
        self
    }

    /// With its length, so that two texts are not taken for one.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64).0.update(text.as_bytes());
        self
    }

    pub fn mark(&mut self, mark: Mark) -> &mut Self {
        self.name(mark.0)
    }

    pub fn build(&self) -> Mark {
        Mark(self.0.digest128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_tells_its_parts_and_their_order_apart() {
        let of = |texts: &[&str]| {
            let mut mark = MarkBuilder::default();
            for text in texts {
                mark.text(text).number(1);
            }
            mark.build()
        };
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["ab", ""]), of(&["a", "b"]));
    }
}
