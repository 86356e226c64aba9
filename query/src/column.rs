//! One series' values over the steps of a query: a slot per step, dense floats with a bitmap, histograms on
//! the side.

use std::sync::Arc;

use model::histogram::Histogram;

/// What stands in a slot.
#[derive(Clone, Copy, Debug)]
pub enum Point<'a> {
    Float(f64),
    Histogram(&'a Arc<Histogram>),
}

/// One series' values over all steps of an evaluation.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// One per step; meaningful where `present` has a bit.
    floats: Vec<f64>,
    /// A bit per step that holds a float.
    present: Vec<u64>,
    /// Steps that hold a histogram, ascending; none of them has a bit in `present`.
    histograms: Vec<(u32, Arc<Histogram>)>,
}

impl Column {
    /// `steps` empty slots.
    pub fn new(steps: usize) -> Self {
        Column { floats: vec![0.0; steps], present: vec![0; steps.div_ceil(64)], histograms: Vec::new() }
    }

    /// A float in every slot.
    pub fn full(floats: Vec<f64>) -> Self {
        let steps = floats.len();
        let mut present = vec![u64::MAX; steps.div_ceil(64)];
        if let (Some(last), 1..) = (present.last_mut(), steps % 64) {
            *last = (1 << (steps % 64)) - 1;
        }
        Column { floats, present, histograms: Vec::new() }
    }

    /// Dense floats and the bitmap of those that count; `present` has as many words as the floats need.
    pub fn from_parts(floats: Vec<f64>, present: Vec<u64>) -> Self {
        Column { floats, present, histograms: Vec::new() }
    }

    /// Fills a column that holds nothing: `floats` writes the floats, of which those count that have a bit in
    /// `present`.
    pub fn fill(&mut self, present: &[u64], floats: impl FnOnce(&mut [f64])) {
        self.present.copy_from_slice(present);
        floats(&mut self.floats);
    }

    /// How many slots.
    pub fn steps(&self) -> usize {
        self.floats.len()
    }

    #[inline]
    pub fn get(&self, step: usize) -> Option<Point<'_>> {
        if self.present[step >> 6] >> (step & 63) & 1 == 1 {
            return Some(Point::Float(self.floats[step]));
        }
        if self.histograms.is_empty() {
            return None;
        }
        self.histogram(step).map(Point::Histogram)
    }

    /// The float of a slot.
    #[inline]
    pub fn float(&self, step: usize) -> Option<f64> {
        (self.present[step >> 6] >> (step & 63) & 1 == 1).then(|| self.floats[step])
    }

    /// The histogram of a slot.
    pub fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        let at = self.histograms.binary_search_by_key(&(step as u32), |(s, _)| *s).ok()?;
        Some(&self.histograms[at].1)
    }

    #[inline]
    pub fn set_float(&mut self, step: usize, v: f64) {
        self.floats[step] = v;
        self.present[step >> 6] |= 1 << (step & 63);
    }

    /// Cheap when steps come ascending. The slot must not hold a float.
    pub fn set_histogram(&mut self, step: usize, h: Arc<Histogram>) {
        let step = step as u32;
        match self.histograms.last() {
            Some((last, _)) if *last >= step => {
                match self.histograms.binary_search_by_key(&step, |(s, _)| *s) {
                    Ok(at) => self.histograms[at].1 = h,
                    Err(at) => self.histograms.insert(at, (step, h)),
                }
            }
            _ => self.histograms.push((step, h)),
        }
    }

    pub fn set(&mut self, step: usize, value: model::sample::Value) {
        match value {
            model::sample::Value::Float(v) => self.set_float(step, v),
            model::sample::Value::Histogram(h) => self.set_histogram(step, h),
        }
    }

    /// Whether no slot holds anything.
    pub fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.present.iter().all(|w| *w == 0)
    }

    /// How many slots hold something.
    pub fn len(&self) -> usize {
        self.histograms.len() + self.float_count()
    }

    pub fn float_count(&self) -> usize {
        self.present.iter().map(|w| w.count_ones() as usize).sum()
    }

    pub fn histogram_count(&self) -> usize {
        self.histograms.len()
    }

    /// Filled slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Point<'_>)> {
        (0..self.steps()).filter_map(|s| self.get(s).map(|p| (s, p)))
    }

    /// The dense floats and their bitmap (bit `i % 64` of word `i / 64`), for loops that ignore histograms.
    pub fn floats(&self) -> (&[f64], &[u64]) {
        (&self.floats, &self.present)
    }

    /// The dense floats of a column, for those who know which of them count.
    pub fn into_floats(self) -> Vec<f64> {
        self.floats
    }

    /// The histograms by step, ascending.
    pub fn histograms(&self) -> &[(u32, Arc<Histogram>)] {
        &self.histograms
    }

    /// Replaces every float; slots stay as they are. Histograms are dropped.
    pub fn map_floats(&mut self, mut f: impl FnMut(f64) -> f64) {
        self.histograms.clear();
        for v in &mut self.floats {
            *v = f(*v);
        }
    }

    /// Replaces every value; a histogram for which `h` has none leaves its slot empty.
    pub fn map_values(
        &mut self,
        mut f: impl FnMut(f64) -> f64,
        mut h: impl FnMut(&Arc<Histogram>) -> Option<Arc<Histogram>>,
    ) {
        for v in &mut self.floats {
            *v = f(*v);
        }
        self.histograms.retain_mut(|(_, x)| match h(x) {
            Some(new) => {
                *x = new;
                true
            }
            None => false,
        });
    }

    /// Empties the slots for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        for word in 0..self.present.len() {
            let mut bits = self.present[word];
            while bits != 0 {
                let i = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if !keep(word * 64 + i) {
                    self.present[word] &= !(1 << i);
                }
            }
        }
        self.histograms.retain(|(s, _)| keep(*s as usize));
    }

    /// Empties a slot.
    pub fn clear(&mut self, step: usize) {
        self.present[step >> 6] &= !(1 << (step & 63));
        if let Ok(at) = self.histograms.binary_search_by_key(&(step as u32), |(s, _)| *s) {
            self.histograms.remove(at);
        }
    }

    /// `count` slots from one on, as a column.
    pub fn part(&self, from: usize, count: usize) -> Column {
        let mut part = Column::new(count);
        part.copy_part(0, self, from, count);
        part
    }

    /// Fills `count` slots from `to` on with those of another column from `from` on, whatever they held.
    pub fn copy_part(&mut self, to: usize, other: &Column, from: usize, count: usize) {
        self.floats[to..to + count].copy_from_slice(&other.floats[from..from + count]);
        for i in 0..count {
            let bit = other.present[(from + i) >> 6] >> ((from + i) & 63) & 1;
            let word = &mut self.present[(to + i) >> 6];
            *word = *word & !(1 << ((to + i) & 63)) | bit << ((to + i) & 63);
        }
        let within = |step: u32, first: usize| (first..first + count).contains(&(step as usize));
        if self.histograms.iter().any(|(step, _)| within(*step, to)) {
            self.histograms.retain(|(step, _)| !within(*step, to));
        }
        for (step, histogram) in other.histograms.iter().filter(|(step, _)| within(*step, from)) {
            self.set_histogram(*step as usize - from + to, histogram.clone());
        }
    }

    /// Bytes held, for the query's budget.
    pub fn bytes(&self) -> u64 {
        let histograms: usize = self.histograms.iter().map(|(_, h)| h.size_bytes() + 16).sum();
        (self.floats.len() * 8 + self.present.len() * 8 + histograms) as u64
    }

    /// Puts the other's filled slots into this one's empty slots; `false` (and nothing kept in order) where
    /// both fill one.
    pub fn absorb(&mut self, other: Column) -> bool {
        for (step, p) in other.iter() {
            if self.get(step).is_some() {
                return false;
            }
            match p {
                Point::Float(v) => self.set_float(step, v),
                Point::Histogram(h) => self.set_histogram(step, h.clone()),
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_slots_hold_a_float_or_a_histogram_or_nothing() {
        let mut c = Column::new(130);
        c.set_float(0, 1.0);
        c.set_float(129, f64::NAN);
        c.set_histogram(64, Arc::new(Histogram::default()));
        c.set_histogram(3, Arc::new(Histogram::default()));
        assert_eq!(c.iter().map(|(s, _)| s).collect::<Vec<_>>(), [0, 3, 64, 129]);
        assert_eq!((c.len(), c.float_count()), (4, 2));
        assert!(matches!(c.get(64), Some(Point::Histogram(_))));
        assert_eq!(Column::full(vec![1.0; 65]).len(), 65);
        assert_eq!(Column::full(vec![1.0; 64]).len(), 64);
        let part = c.part(3, 127);
        assert_eq!(part.iter().map(|(s, _)| s).collect::<Vec<_>>(), [0, 61, 126]);
        let mut copy = c.clone();
        copy.copy_part(2, &part, 1, 100);
        assert_eq!(copy.iter().map(|(s, _)| s).collect::<Vec<_>>(), [0, 62, 129]);
        let mut other = Column::new(130);
        other.set_float(1, 2.0);
        assert!(c.absorb(other.clone()));
        assert!(!c.absorb(other));
    }
}
