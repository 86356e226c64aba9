//! Exemplars and metadata between processes, which are few enough for one JSON text.

use model::exemplar::{Exemplar, SeriesExemplars};
use model::labels::Labels;
use serde::{Deserialize, Serialize};

/// What stands around the data of such an answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct JsonAnswer<T> {
    pub version: u32,
    pub writer: String,
    pub tenant: String,
    pub data: T,
}

/// Says that what was asked for is in the bucket.
#[derive(Debug, Serialize, Deserialize)]
pub struct Committed {
    pub snapshot: u64,
}

/// A label set as pairs.
type Pairs = Vec<(String, String)>;

/// A series and its exemplars: timestamp, the bits of the value (JSON has no infinity), labels.
#[derive(Debug, Serialize, Deserialize)]
pub struct Series {
    labels: Pairs,
    exemplars: Vec<(i64, u64, Pairs)>,
}

fn pairs(labels: &Labels) -> Pairs {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `None` where the pairs are no label set.
fn label_set(pairs: &Pairs) -> Option<Labels> {
    let sorted = pairs.windows(2).all(|w| w[0].0 < w[1].0);
    let full = pairs.iter().all(|(_, value)| !value.is_empty());
    (sorted && full).then(|| Labels::from_sorted(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
}

impl Series {
    pub fn write(of: &SeriesExemplars) -> Series {
        let one = |e: &Exemplar| (e.ts_ms, e.value.to_bits(), pairs(&e.labels));
        Series { labels: pairs(&of.labels), exemplars: of.exemplars.iter().map(one).collect() }
    }

    /// `None` where a label set is none.
    pub fn read(self) -> Option<SeriesExemplars> {
        let one = |(ts_ms, bits, labels): &(i64, u64, Pairs)| {
            Some(Exemplar { ts_ms: *ts_ms, value: f64::from_bits(*bits), labels: label_set(labels)? })
        };
        let exemplars = self.exemplars.iter().map(one).collect::<Option<_>>()?;
        Some(SeriesExemplars { labels: label_set(&self.labels)?, exemplars })
    }
}
