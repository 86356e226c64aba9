//! An encoder that writes the same message as no sender would but the wire format allows: fields out of
//! order, unknown ones between, packed numbers split or spread, varints padded, single fields sent twice,
//! sub-messages in pieces.

use model::source::testing::rng::Rng;

use super::{BucketSpan, Count, Histogram, ZeroCount, v1, v2};

/// A message's fields: those of one number keep their order, different numbers are dealt out at random.
struct Fields(Vec<(u32, Vec<Vec<u8>>)>);

impl Fields {
    fn new() -> Self {
        Fields(Vec::new())
    }

    fn add(&mut self, number: u32, encoded: Vec<u8>) {
        match self.0.iter_mut().find(|(n, _)| *n == number) {
            Some((_, all)) => all.push(encoded),
            None => self.0.push((number, vec![encoded])),
        }
    }

    fn write(self, rng: &mut Rng) -> Vec<u8> {
        let mut queues: Vec<_> = self.0.into_iter().map(|(_, all)| all.into_iter()).collect();
        let mut out = Vec::new();
        while !queues.is_empty() {
            if rng.below(8) == 0 {
                unknown(rng, &mut out);
            }
            let i = rng.below(queues.len());
            match queues[i].next() {
                Some(field) => out.extend(field),
                None => drop(queues.swap_remove(i)),
            }
        }
        out
    }
}

fn varint(rng: &mut Rng, mut n: u64, out: &mut Vec<u8>) {
    let start = out.len();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    if rng.below(10) == 0 {
        for _ in 0..rng.below(11 - (out.len() - start)) {
            *out.last_mut().unwrap() |= 0x80;
            out.push(0);
        }
    }
}

fn key(rng: &mut Rng, number: u32, kind: u32) -> Vec<u8> {
    let mut out = Vec::new();
    varint(rng, u64::from(number << 3 | kind), &mut out);
    out
}

fn unknown(rng: &mut Rng, out: &mut Vec<u8>) {
    let number = 100 + rng.below(1000) as u32;
    let kind = [0, 1, 2, 5][rng.below(4)];
    out.extend(key(rng, number, kind));
    match kind {
        0 => {
            let n = rng.roll();
            varint(rng, n, out);
        }
        1 => out.extend(rng.roll().to_le_bytes()),
        5 => out.extend((rng.roll() as u32).to_le_bytes()),
        _ => {
            let len = rng.below(20);
            varint(rng, len as u64, out);
            out.extend((0..len).map(|_| rng.roll() as u8));
        }
    }
}

fn number(rng: &mut Rng, f: &mut Fields, field: u32, value: u64) {
    // Sent before with another value, which the last one overrules.
    if rng.below(6) == 0 {
        let mut out = key(rng, field, 0);
        varint(rng, 77, &mut out);
        f.add(field, out);
    } else if value == 0 {
        return;
    }
    let mut out = key(rng, field, 0);
    varint(rng, value, &mut out);
    f.add(field, out);
}

fn double(rng: &mut Rng, f: &mut Fields, field: u32, value: f64) {
    if rng.below(6) == 0 {
        let mut out = key(rng, field, 1);
        out.extend(7.5f64.to_le_bytes());
        f.add(field, out);
    } else if value.to_bits() == 0 {
        return;
    }
    let mut out = key(rng, field, 1);
    out.extend(value.to_le_bytes());
    f.add(field, out);
}

fn bytes(rng: &mut Rng, f: &mut Fields, field: u32, value: &[u8]) {
    let mut out = key(rng, field, 2);
    varint(rng, value.len() as u64, &mut out);
    out.extend_from_slice(value);
    f.add(field, out);
}

fn text(rng: &mut Rng, f: &mut Fields, field: u32, value: &str) {
    if rng.below(6) == 0 {
        bytes(rng, f, field, b"overruled");
    } else if value.is_empty() {
        return;
    }
    bytes(rng, f, field, value.as_bytes());
}

/// A repeated number: runs of it packed, others one by one.
fn numbers(rng: &mut Rng, f: &mut Fields, field: u32, values: &[u64]) {
    let mut rest = values;
    while !rest.is_empty() {
        let (run, after) = rest.split_at(1 + rng.below(rest.len()));
        rest = after;
        if rng.below(2) == 0 {
            let mut packed = Vec::new();
            run.iter().for_each(|v| varint(rng, *v, &mut packed));
            bytes(rng, f, field, &packed);
        } else {
            for v in run {
                let mut out = key(rng, field, 0);
                varint(rng, *v, &mut out);
                f.add(field, out);
            }
        }
    }
}

fn doubles(rng: &mut Rng, f: &mut Fields, field: u32, values: &[f64]) {
    let mut rest = values;
    while !rest.is_empty() {
        let (run, after) = rest.split_at(1 + rng.below(rest.len()));
        rest = after;
        if rng.below(2) == 0 {
            let packed: Vec<u8> = run.iter().flat_map(|v| v.to_le_bytes()).collect();
            bytes(rng, f, field, &packed);
        } else {
            for v in run {
                let mut out = key(rng, field, 1);
                out.extend(v.to_le_bytes());
                f.add(field, out);
            }
        }
    }
}

fn zigzag(n: i64) -> u64 {
    (n << 1 ^ n >> 63) as u64
}

fn zigzag32(n: i32) -> u64 {
    u64::from((n << 1 ^ n >> 31) as u32)
}

fn spans(rng: &mut Rng, f: &mut Fields, field: u32, spans: &[BucketSpan]) {
    for s in spans {
        let mut m = Fields::new();
        number(rng, &mut m, 1, zigzag32(s.offset));
        number(rng, &mut m, 2, u64::from(s.length));
        let m = m.write(rng);
        bytes(rng, f, field, &m);
    }
}

fn histogram(rng: &mut Rng, h: &Histogram) -> Vec<u8> {
    let mut f = Fields::new();
    // Either of a pair may come first; that the last one counts is only certain in one queue, so both take
    // the number 1 or 6 here.
    match h.count {
        Some(Count::Int(n)) => {
            let mut out = key(rng, 2, 1);
            out.extend(9.0f64.to_le_bytes());
            f.add(1, out);
            let mut out = key(rng, 1, 0);
            varint(rng, n, &mut out);
            f.add(1, out);
        }
        Some(Count::Float(n)) => {
            let mut out = key(rng, 1, 0);
            varint(rng, 9, &mut out);
            f.add(1, out);
            let mut out = key(rng, 2, 1);
            out.extend(n.to_le_bytes());
            f.add(1, out);
        }
        None => {}
    }
    match h.zero_count {
        Some(ZeroCount::Int(n)) => {
            let mut out = key(rng, 6, 0);
            varint(rng, n, &mut out);
            f.add(6, out);
        }
        Some(ZeroCount::Float(n)) => {
            let mut out = key(rng, 7, 1);
            out.extend(n.to_le_bytes());
            f.add(6, out);
        }
        None => {}
    }
    double(rng, &mut f, 3, h.sum);
    number(rng, &mut f, 4, zigzag32(h.schema));
    double(rng, &mut f, 5, h.zero_threshold);
    spans(rng, &mut f, 8, &h.negative_spans);
    let deltas = |v: &[i64]| v.iter().map(|d| zigzag(*d)).collect::<Vec<_>>();
    numbers(rng, &mut f, 9, &deltas(&h.negative_deltas));
    doubles(rng, &mut f, 10, &h.negative_counts);
    spans(rng, &mut f, 11, &h.positive_spans);
    numbers(rng, &mut f, 12, &deltas(&h.positive_deltas));
    doubles(rng, &mut f, 13, &h.positive_counts);
    number(rng, &mut f, 14, h.reset_hint as i64 as u64);
    number(rng, &mut f, 15, h.timestamp as u64);
    doubles(rng, &mut f, 16, &h.custom_values);
    number(rng, &mut f, 17, h.start_timestamp as u64);
    f.write(rng)
}

fn label(rng: &mut Rng, l: &v1::Label) -> Vec<u8> {
    let mut f = Fields::new();
    text(rng, &mut f, 1, &l.name);
    text(rng, &mut f, 2, &l.value);
    f.write(rng)
}

pub fn write_request(rng: &mut Rng, request: &v1::WriteRequest) -> Vec<u8> {
    let mut f = Fields::new();
    for s in &request.timeseries {
        let mut m = Fields::new();
        for l in &s.labels {
            let l = label(rng, l);
            bytes(rng, &mut m, 1, &l);
        }
        for s in &s.samples {
            let mut x = Fields::new();
            double(rng, &mut x, 1, s.value);
            number(rng, &mut x, 2, s.timestamp as u64);
            let x = x.write(rng);
            bytes(rng, &mut m, 2, &x);
        }
        for e in &s.exemplars {
            let mut x = Fields::new();
            for l in &e.labels {
                let l = label(rng, l);
                bytes(rng, &mut x, 1, &l);
            }
            double(rng, &mut x, 2, e.value);
            number(rng, &mut x, 3, e.timestamp as u64);
            let x = x.write(rng);
            bytes(rng, &mut m, 3, &x);
        }
        for h in &s.histograms {
            let h = histogram(rng, h);
            bytes(rng, &mut m, 4, &h);
        }
        let m = m.write(rng);
        bytes(rng, &mut f, 1, &m);
    }
    for meta in &request.metadata {
        let mut m = Fields::new();
        number(rng, &mut m, 1, meta.r#type as i64 as u64);
        text(rng, &mut m, 2, &meta.metric_family_name);
        text(rng, &mut m, 4, &meta.help);
        text(rng, &mut m, 5, &meta.unit);
        let m = m.write(rng);
        bytes(rng, &mut f, 3, &m);
    }
    f.write(rng)
}

pub fn request_v2(rng: &mut Rng, request: &v2::Request) -> Vec<u8> {
    let mut f = Fields::new();
    for s in &request.symbols {
        bytes(rng, &mut f, 4, s.as_bytes());
    }
    for s in &request.timeseries {
        let mut m = Fields::new();
        let refs = |refs: &[u32]| refs.iter().map(|r| u64::from(*r)).collect::<Vec<_>>();
        numbers(rng, &mut m, 1, &refs(&s.labels_refs));
        for s in &s.samples {
            let mut x = Fields::new();
            double(rng, &mut x, 1, s.value);
            number(rng, &mut x, 2, s.timestamp as u64);
            number(rng, &mut x, 3, s.start_timestamp as u64);
            let x = x.write(rng);
            bytes(rng, &mut m, 2, &x);
        }
        for h in &s.histograms {
            let h = histogram(rng, h);
            bytes(rng, &mut m, 3, &h);
        }
        for e in &s.exemplars {
            let mut x = Fields::new();
            numbers(rng, &mut x, 1, &refs(&e.labels_refs));
            double(rng, &mut x, 2, e.value);
            number(rng, &mut x, 3, e.timestamp as u64);
            let x = x.write(rng);
            bytes(rng, &mut m, 4, &x);
        }
        if let Some(meta) = &s.metadata {
            // In two pieces, to be merged; a field that the first piece sent and the second one overrules may
            // be among them.
            let mut pieces = [Fields::new(), Fields::new()];
            number(rng, &mut pieces[1], 1, meta.r#type as i64 as u64);
            let i = rng.below(2);
            number(rng, &mut pieces[i], 3, u64::from(meta.help_ref));
            let i = rng.below(2);
            number(rng, &mut pieces[i], 4, u64::from(meta.unit_ref));
            for piece in pieces {
                let piece = piece.write(rng);
                bytes(rng, &mut m, 5, &piece);
            }
        }
        number(rng, &mut m, 6, s.created_timestamp as u64);
        let m = m.write(rng);
        bytes(rng, &mut f, 5, &m);
    }
    f.write(rng)
}
