//! Requests encoded before anything is measured, in one file per connection.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::encode::{Encoder, Protocol};
use crate::fleet::{Fleet, FleetOptions};

/// What was encoded.
#[derive(Clone, Debug)]
pub struct Spool {
    pub files: Vec<PathBuf>,
    pub samples: u64,
    pub requests: u64,
    /// Series, those included that were replaced on the way.
    pub series: u64,
    /// Compressed bytes of all bodies.
    pub bytes: u64,
}

/// Encodes the whole fleet, each connection's part on a thread of its own.
pub fn encode(
    dir: &Path,
    options: &FleetOptions,
    connections: u32,
    protocol: Protocol,
    batch: usize,
) -> std::io::Result<Spool> {
    std::fs::create_dir_all(dir)?;
    let part = |number: u32| -> std::io::Result<Spool> {
        let path = dir.join(format!("requests-{number}"));
        let mut fleet = Fleet::part(options, number, connections);
        let mut encoder =
            Encoder::new(protocol, batch, BufWriter::with_capacity(1 << 20, File::create(&path)?));
        let mut failed = None;
        for step in 0..options.steps() {
            fleet.step(step, |names, scrape| {
                if let Err(e) = encoder.scrape(names, &scrape) {
                    failed = Some(e);
                }
            });
            // A sender does not wait for the next scrape to fill a request.
            encoder.flush()?;
        }
        if let Some(e) = failed {
            return Err(e);
        }
        let (requests, bytes) = (encoder.requests, encoder.bytes);
        encoder.finish()?;
        Ok(Spool { files: vec![path], samples: fleet.samples, requests, series: fleet.series, bytes })
    };
    let parts: Vec<std::io::Result<Spool>> = std::thread::scope(|scope| {
        let part = &part;
        let threads: Vec<_> = (0..connections).map(|n| scope.spawn(move || part(n))).collect();
        let gone = |_| Err(std::io::Error::other("an encoding thread panicked"));
        threads.into_iter().map(|t| t.join().unwrap_or_else(gone)).collect()
    });
    let mut whole = Spool { files: Vec::new(), samples: 0, requests: 0, series: 0, bytes: 0 };
    for part in parts {
        let part = part?;
        whole.files.extend(part.files);
        whole.samples += part.samples;
        whole.requests += part.requests;
        whole.series += part.series;
        whole.bytes += part.bytes;
    }
    Ok(whole)
}

impl Spool {
    /// The first part of every connection's requests, up to so large a share of their samples, and the rest,
    /// each in files of its own beside these.
    pub fn divide(&self, share: f64) -> std::io::Result<(Spool, Spool)> {
        let none = Spool { files: Vec::new(), samples: 0, requests: 0, series: self.series, bytes: 0 };
        let (mut first, mut rest) = (none.clone(), none);
        for file in &self.files {
            let most = (self.samples as f64 * share / self.files.len() as f64) as u64;
            let paths = [file.with_extension("first"), file.with_extension("rest")];
            let mut outs = Vec::new();
            for path in &paths {
                outs.push(BufWriter::with_capacity(1 << 20, File::create(path)?));
            }
            let (mut requests, mut sent) = (Requests::open(file)?, 0);
            while let Some((body, samples)) = requests.next()? {
                let part = usize::from(sent >= most);
                sent += u64::from(samples);
                let of = if part == 0 { &mut first } else { &mut rest };
                of.samples += u64::from(samples);
                of.requests += 1;
                of.bytes += body.len() as u64;
                outs[part].write_all(&(body.len() as u32).to_le_bytes())?;
                outs[part].write_all(&samples.to_le_bytes())?;
                outs[part].write_all(&body)?;
            }
            for out in &mut outs {
                out.flush()?;
            }
            let [a, b] = paths;
            first.files.push(a);
            rest.files.push(b);
        }
        Ok((first, rest))
    }
}

/// Requests of one connection, read back in order.
pub struct Requests(BufReader<File>);

impl Requests {
    pub fn open(path: &Path) -> std::io::Result<Requests> {
        Ok(Requests(BufReader::with_capacity(1 << 20, File::open(path)?)))
    }

    /// The next body and its number of samples.
    pub fn next(&mut self) -> std::io::Result<Option<(Vec<u8>, u32)>> {
        let mut head = [0u8; 8];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        let [a, b, c, d, e, f, g, h] = head;
        let mut body = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
        self.0.read_exact(&mut body)?;
        Ok(Some((body, u32::from_le_bytes([e, f, g, h]))))
    }
}
