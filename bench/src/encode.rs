//! Remote-write requests, 1.0 and 2.0, written by hand field by field and compressed with snappy.

use std::io::Write;

use crate::fleet::{Names, Scrape};

/// Which remote-write protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V1,
    V2,
}

impl Protocol {
    pub fn content_type(self) -> &'static str {
        match self {
            Protocol::V1 => "application/x-protobuf",
            Protocol::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    pub fn version(self) -> &'static str {
        match self {
            Protocol::V1 => "0.1.0",
            Protocol::V2 => "2.0.0",
        }
    }
}

/// Gathers scrapes into requests of at most so many samples and hands them out compressed.
pub struct Encoder<W> {
    protocol: Protocol,
    batch: usize,
    out: W,
    snappy: snap::raw::Encoder,
    message: Vec<u8>,
    series: Vec<u8>,
    samples: u32,
    /// 2.0: per name of the fleet, the request it was last used in and its number there.
    refs: Vec<(u64, u32)>,
    symbols: Vec<u8>,
    symbol_count: u32,
    request: u64,
    pub requests: u64,
    /// Bytes as they go over the wire.
    pub bytes: u64,
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint_len(v: usize) -> usize {
    (64 - (v as u64 | 1).leading_zeros() as usize).div_ceil(7)
}

impl<W: Write> Encoder<W> {
    /// Requests are written to `out` as length, number of samples (each a `u32`, little end first) and body.
    pub fn new(protocol: Protocol, batch: usize, out: W) -> Self {
        Encoder {
            protocol,
            batch,
            out,
            snappy: snap::raw::Encoder::new(),
            message: Vec::new(),
            series: Vec::new(),
            samples: 0,
            refs: Vec::new(),
            symbols: Vec::new(),
            symbol_count: 0,
            request: 0,
            requests: 0,
            bytes: 0,
        }
    }

    pub fn scrape(&mut self, names: &Names, scrape: &Scrape<'_>) -> std::io::Result<()> {
        for (labels, value) in scrape.labels.iter().zip(scrape.values) {
            if self.samples as usize >= self.batch {
                self.flush()?;
            }
            self.series.clear();
            match self.protocol {
                Protocol::V1 => self.labels_v1(names, labels),
                Protocol::V2 => self.labels_v2(names, labels),
            }
            self.sample(*value, scrape.ts_ms);
            let number = if self.protocol == Protocol::V1 { 1 } else { 5 };
            field(&mut self.message, number, &self.series);
            self.samples += 1;
        }
        Ok(())
    }

    fn labels_v1(&mut self, names: &Names, labels: &[u32]) {
        for pair in labels.chunks_exact(2) {
            let (name, value) = (names.text(pair[0]).as_bytes(), names.text(pair[1]).as_bytes());
            let len = 2 + varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len();
            self.series.push(1 << 3 | 2);
            varint(&mut self.series, len as u64);
            field(&mut self.series, 1, name);
            field(&mut self.series, 2, value);
        }
    }

    fn labels_v2(&mut self, names: &Names, labels: &[u32]) {
        if self.symbol_count == 0 {
            // The table begins with the empty string, says the specification.
            field(&mut self.symbols, 4, b"");
            self.symbol_count = 1;
            self.request += 1;
        }
        self.refs.resize(names.len().max(self.refs.len()), (0, 0));
        let mut packed = Vec::with_capacity(32);
        for &n in labels {
            let known = &mut self.refs[n as usize];
            if known.0 != self.request {
                *known = (self.request, self.symbol_count);
                self.symbol_count += 1;
                field(&mut self.symbols, 4, names.text(n).as_bytes());
            }
            varint(&mut packed, u64::from(known.1));
        }
        field(&mut self.series, 1, &packed);
    }

    fn sample(&mut self, value: f64, ts_ms: i64) {
        let mut sample = [0u8; 20];
        let mut len = 0;
        // proto3 leaves zeros out, and so does every sender; negative zero is not one.
        if value.to_bits() != 0 {
            sample[0] = 1 << 3 | 1;
            sample[1..9].copy_from_slice(&value.to_le_bytes());
            len = 9;
        }
        sample[len] = 2 << 3;
        len += 1;
        let mut t = ts_ms as u64;
        while t >= 0x80 {
            sample[len] = t as u8 | 0x80;
            t >>= 7;
            len += 1;
        }
        sample[len] = t as u8;
        field(&mut self.series, 2, &sample[..=len]);
    }

    /// Hands out what has gathered.
    pub fn flush(&mut self) -> std::io::Result<()> {
        if self.samples == 0 {
            return Ok(());
        }
        if self.protocol == Protocol::V2 {
            self.symbols.extend_from_slice(&self.message);
            std::mem::swap(&mut self.symbols, &mut self.message);
        }
        let body = self.snappy.compress_vec(&self.message).map_err(std::io::Error::other)?;
        self.out.write_all(&(body.len() as u32).to_le_bytes())?;
        self.out.write_all(&self.samples.to_le_bytes())?;
        self.out.write_all(&body)?;
        self.requests += 1;
        self.bytes += body.len() as u64;
        self.message.clear();
        self.symbols.clear();
        self.symbol_count = 0;
        self.samples = 0;
        Ok(())
    }

    pub fn finish(mut self) -> std::io::Result<W> {
        self.flush()?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first request of 2 series, decompressed.
    fn encoded(protocol: Protocol, value: f64) -> Vec<u8> {
        let mut names = Names::default();
        let labels: Vec<Box<[u32]>> = vec![
            ["__name__", "up", "job", "a"].map(|t| names.number(t)).into(),
            ["__name__", "up", "job", "b"].map(|t| names.number(t)).into(),
        ];
        let mut encoder = Encoder::new(protocol, 100, Vec::new());
        encoder.scrape(&names, &Scrape { ts_ms: 300, labels: &labels, values: &[value, value] }).unwrap();
        let out = encoder.finish().unwrap();
        assert_eq!(out[4..8], 2u32.to_le_bytes());
        snap::raw::Decoder::new().decompress_vec(&out[8..]).unwrap()
    }

    #[test]
    fn version_1_is_what_the_wire_format_says() {
        let series = |job: u8| {
            let mut s = vec![0x0a, 14, 0x0a, 8];
            s.extend(b"__name__");
            s.extend([0x12, 2]);
            s.extend(b"up");
            s.extend([0x0a, 8, 0x0a, 3]);
            s.extend(b"job");
            s.extend([0x12, 1, job]);
            s.extend([0x12, 12, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02]);
            let mut out = vec![0x0a, s.len() as u8];
            out.extend(s);
            out
        };
        assert_eq!(encoded(Protocol::V1, 1.0), [series(b'a'), series(b'b')].concat());
        let zero = encoded(Protocol::V1, 0.0);
        assert!(zero.ends_with(&[0x12, 3, 0x10, 0xac, 0x02]), "a zero is left out: {zero:?}");
    }

    #[test]
    fn version_2_names_each_symbol_once() {
        let body = encoded(Protocol::V2, 1.0);
        let mut table = vec![0x22, 0];
        for text in ["__name__", "up", "job", "a", "b"] {
            table.extend([0x22, text.len() as u8]);
            table.extend(text.as_bytes());
        }
        assert_eq!(body[..table.len()], table);
        let sample = [0x12, 12, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02];
        let series = |refs: [u8; 4]| [&[0x2a, 20, 0x0a, 4][..], &refs, &sample].concat();
        assert_eq!(body[table.len()..], [series([1, 2, 3, 4]), series([1, 2, 3, 5])].concat());
    }
}
