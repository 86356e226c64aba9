//! Which resolution answered which part of time: told by the sources of a query, shown to its reader.

/// Which resolution answered which part of time, told by the sources of a query while they read.
#[derive(Debug, Default)]
pub struct ResolutionReport {
    parts: parking_lot::Mutex<Vec<ResolutionPart>>,
}

/// A part of time, ends included, and the resolution that answers it (0: samples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolutionPart {
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub resolution_ms: i64,
    /// The windows are coarser than the selection could take exactly, because nothing finer is left.
    pub coarse: bool,
    /// The windows were made by another system, which kept less of the samples than Hearth does.
    pub approximate: bool,
}

impl ResolutionPart {
    /// What of it lies in a range of time, both ends included.
    pub fn within(&self, (min_t_ms, max_t_ms): (i64, i64)) -> Option<ResolutionPart> {
        let (min_t_ms, max_t_ms) = (self.min_t_ms.max(min_t_ms), self.max_t_ms.min(max_t_ms));
        (min_t_ms <= max_t_ms).then_some(ResolutionPart { min_t_ms, max_t_ms, ..*self })
    }

    /// Whether what is computed from it is what the samples would have given.
    pub fn exact(&self) -> bool {
        !self.coarse && !self.approximate
    }
}

impl ResolutionReport {
    /// Notes a part.
    pub fn note(&self, part: ResolutionPart) {
        self.parts.lock().push(part);
    }

    /// All that was noted, in order.
    pub fn parts(&self) -> Vec<ResolutionPart> {
        self.parts.lock().clone()
    }
}
