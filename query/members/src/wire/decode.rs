//! Reads an answer as it arrives, and believes nothing of it that was not checked.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt8Type, UInt32Type};
use arrow_array::{Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use bytes::Bytes;
use model::histogram::Histogram;
use model::labels::Labels;
use model::source::{Budget, SeriesColumns, SeriesCursor, SourceError};

use super::{END, End, FIELDS, Failure, HEADER_KEY, Header, MAX_BATCH_BYTES, NAME, SAMPLES, TIMELINES};
use crate::error::{AskError, span_text};

/// Where the pieces of an answer come from; `None` at the end. Blocks.
pub trait Pieces: Send {
    fn next(&mut self) -> Option<Result<Bytes, AskError>>;
}

/// Batches of an answer out of its pieces.
struct Batches {
    pieces: Box<dyn Pieces>,
    decoder: StreamDecoder,
    left: Buffer,
    /// Bytes that arrived since the last batch.
    gathered: usize,
}

fn wrong(what: impl Into<String>) -> AskError {
    AskError::Wrong(what.into())
}

impl Batches {
    fn new(pieces: Box<dyn Pieces>) -> Batches {
        Batches { pieces, decoder: StreamDecoder::new(), left: Buffer::default(), gathered: 0 }
    }

    /// More bytes; false at the end.
    fn more(&mut self) -> Result<bool, AskError> {
        while self.left.is_empty() {
            match self.pieces.next() {
                None => return Ok(false),
                Some(piece) => self.left = Buffer::from(piece?),
            }
            self.gathered += self.left.len();
            if self.gathered > MAX_BATCH_BYTES {
                return Err(wrong(format!("a batch has more than {MAX_BATCH_BYTES} bytes")));
            }
        }
        Ok(true)
    }

    /// Decodes what has arrived. Whatever was in the middle of a panic is given up with the error.
    fn decode(&mut self) -> Result<Option<RecordBatch>, AskError> {
        let (decoder, left) = (&mut self.decoder, &mut self.left);
        let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decoder.decode(left)));
        match decoded {
            Ok(Ok(batch)) => Ok(batch),
            Ok(Err(e)) => Err(wrong(format!("it is no Arrow stream: {e}"))),
            Err(_) => Err(wrong("it is no Arrow stream: the decoder gave up")),
        }
    }

    fn header(&mut self) -> Result<Header, AskError> {
        loop {
            if let Some(schema) = self.decoder.schema() {
                let fields: Vec<_> = schema.fields().iter().map(|f| (**f).clone()).collect();
                if fields != *FIELDS {
                    return Err(wrong("its columns are others than were expected"));
                }
                let text = schema.metadata().get(HEADER_KEY).map_or("", String::as_str);
                return serde_json::from_str(text)
                    .map_err(|e| wrong(format!("its header cannot be read: {e}")));
            }
            if !self.more()? {
                return Err(wrong("it ends before its header"));
            }
            // One message at a time: a batch that comes with the header must not be lost.
            if self.decode_schema()?.is_some() {
                return Err(wrong("it begins without a header"));
            }
        }
    }

    /// Feeds the decoder byte by byte of what the first message may be, so that it stops after the schema.
    fn decode_schema(&mut self) -> Result<Option<RecordBatch>, AskError> {
        let mut whole = std::mem::take(&mut self.left);
        while !whole.is_empty() && self.decoder.schema().is_none() {
            let step = whole.len().min(8);
            self.left = whole.slice_with_length(0, step);
            let batch = self.decode()?;
            whole.advance(step - self.left.len());
            if batch.is_some() {
                return Ok(batch);
            }
        }
        self.left = whole;
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, AskError> {
        loop {
            if !self.left.is_empty()
                && let Some(batch) = self.decode()?
            {
                self.gathered = self.left.len();
                return Ok(Some(batch));
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }
}

/// An answer whose header and names have arrived.
pub struct Answer {
    pub header: Header,
    batches: Batches,
    /// The batch in which names end and samples begin, and its first row that was not read.
    begun: Option<(RecordBatch, usize)>,
}

/// What the header has to say, so that the answer is one to the question.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub writer: &'a str,
    pub tenant: &'a str,
    pub floor: u64,
}

impl Answer {
    /// Reads the header, and holds it against the question.
    pub fn begin(pieces: Box<dyn Pieces>, expected: Expected<'_>) -> Result<Answer, AskError> {
        let mut batches = Batches::new(pieces);
        let header = batches.header()?;
        check(&header, expected)?;
        Ok(Answer { header, batches, begun: None })
    }

    /// Reads the names, as `understand` takes them (each with its bytes in memory), each less than the next
    /// by `before`. What they take together is reserved, and for the caller to release.
    pub fn names<T>(
        &mut self,
        budget: &Budget,
        understand: impl Fn(&[u8]) -> Option<(T, u64)>,
        before: impl Fn(&T, &T) -> bool,
    ) -> Result<(Vec<T>, u64), AskError> {
        let (mut names, mut reserved) = (Vec::new(), 0);
        match self.read_names(budget, understand, before, &mut names, &mut reserved) {
            Ok(()) => Ok((names, reserved)),
            Err(e) => {
                budget.release(reserved);
                Err(e)
            }
        }
    }

    fn read_names<T>(
        &mut self,
        budget: &Budget,
        understand: impl Fn(&[u8]) -> Option<(T, u64)>,
        before: impl Fn(&T, &T) -> bool,
        names: &mut Vec<T>,
        reserved: &mut u64,
    ) -> Result<(), AskError> {
        while (names.len() as u64) < self.header.names {
            let (batch, first) = match self.begun.take() {
                Some(begun) => begun,
                None => match self.batches.next()? {
                    Some(batch) => (batch, 0),
                    None => return Err(wrong("it was cut off among its names")),
                },
            };
            let (kinds, texts) = (batch.column(0).as_primitive::<UInt8Type>(), batch.column(1));
            let texts = texts.as_binary::<i32>();
            let (mut row, mut bytes_of_batch) = (first, 0);
            while row < batch.num_rows() && (names.len() as u64) < self.header.names {
                if kinds.value(row) == END {
                    return Err(ended(texts.value(row)));
                }
                let name = (kinds.value(row) == NAME && texts.is_valid(row))
                    .then(|| understand(texts.value(row)))
                    .flatten();
                let (name, bytes) = name.ok_or_else(|| wrong("one of its names is none"))?;
                if names.last().is_some_and(|last| !before(last, &name)) {
                    return Err(wrong("its names are not in order"));
                }
                bytes_of_batch += bytes;
                names.push(name);
                row += 1;
            }
            budget.reserve(bytes_of_batch).map_err(AskError::Query)?;
            *reserved += bytes_of_batch;
            if row < batch.num_rows() {
                self.begun = Some((batch, row));
            }
        }
        Ok(())
    }

    /// Reads the end of an answer that has nothing but names.
    pub fn finish(mut self) -> Result<(), AskError> {
        let (batch, row) = match self.begun.take() {
            Some(begun) => begun,
            None => (self.batches.next()?.ok_or_else(|| wrong("it was cut off"))?, 0),
        };
        let text = batch.column(1).as_binary::<i32>();
        if batch.column(0).as_primitive::<UInt8Type>().value(row) != END || text.is_null(row) {
            return Err(wrong("more comes than its header says"));
        }
        match serde_json::from_slice::<End>(text.value(row)) {
            Ok(End { failed: None, .. }) => Ok(()),
            _ => Err(ended(text.value(row))),
        }
    }
}

fn check(header: &Header, expected: Expected<'_>) -> Result<(), AskError> {
    let Header { version, writer, tenant, floor, .. } = header;
    let says = |what: &str, is: &dyn std::fmt::Debug, asked: &dyn std::fmt::Debug| {
        Err(wrong(format!("it is of {what} {is:?}, and {asked:?} was asked for")))
    };
    match () {
        () if *version != crate::PROTOCOL => says("version", version, &crate::PROTOCOL),
        () if writer != expected.writer => says("the member", writer, &expected.writer),
        () if tenant != expected.tenant => says("the tenant", tenant, &expected.tenant),
        () if *floor != expected.floor => says("what is above", floor, &expected.floor),
        () if header.unsettled_ms.iter().any(|(a, b)| a > b) => Err(wrong("a range ends before it begins")),
        () => Ok(()),
    }
}

/// Why an answer ended where more was to come.
fn ended(text: &[u8]) -> AskError {
    match serde_json::from_slice::<End>(text) {
        Ok(End { failed: Some(failure), .. }) => match failure {
            Failure::Canceled => AskError::Query(SourceError::Canceled),
            Failure::TimedOut => AskError::Query(SourceError::TimedOut),
            Failure::Limit(text) => AskError::Query(SourceError::Limit(text)),
            Failure::Storage(text) => AskError::Away(text),
        },
        Ok(_) => wrong("it ends before all that its header names"),
        Err(e) => wrong(format!("its end cannot be read: {e}")),
    }
}

/// The samples of an answer, series by series.
pub struct RemoteCursor {
    /// Who answers, for errors.
    from: String,
    batches: Batches,
    begun: Option<(RecordBatch, usize)>,
    labels: Vec<Labels>,
    /// The first label set that has not been handed out or passed over.
    next: usize,
    /// The series whose rows are being read, and its number.
    open: Option<(u32, SeriesColumns)>,
    timelines: VecDeque<(u32, Arc<[i64]>)>,
    range_ms: (i64, i64),
    counted: End,
    is_over: bool,
    budget: Arc<Budget>,
    reserved: u64,
}

impl RemoteCursor {
    /// The samples after the names, which are `labels`; `reserved` bytes were reserved for these. Timestamps
    /// lie within `range_ms`, both ends included.
    pub fn new(
        from: String,
        answer: Answer,
        labels: Vec<Labels>,
        range_ms: (i64, i64),
        budget: Arc<Budget>,
        reserved: u64,
    ) -> RemoteCursor {
        RemoteCursor {
            from,
            batches: answer.batches,
            begun: answer.begun,
            labels,
            next: 0,
            open: None,
            timelines: VecDeque::new(),
            range_ms,
            counted: End::default(),
            is_over: false,
            budget,
            reserved,
        }
    }

    /// Reads rows until a few series are complete, or the end.
    fn read(&mut self) -> Result<Vec<SeriesColumns>, AskError> {
        let mut complete = Vec::new();
        while complete.is_empty() && !self.is_over {
            self.budget.check().map_err(AskError::Query)?;
            let (batch, first) = match self.begun.take() {
                Some(begun) => begun,
                None => (self.batches.next()?.ok_or_else(|| wrong("it was cut off before its end"))?, 0),
            };
            for row in first..batch.num_rows() {
                if self.is_over {
                    return Err(wrong("something follows its end"));
                }
                self.row(&batch, row, &mut complete)?;
            }
        }
        Ok(complete)
    }

    fn row(
        &mut self,
        batch: &RecordBatch,
        row: usize,
        complete: &mut Vec<SeriesColumns>,
    ) -> Result<(), AskError> {
        let numbers = batch.column(2).as_primitive::<UInt32Type>();
        match batch.column(0).as_primitive::<UInt8Type>().value(row) {
            SAMPLES if numbers.is_valid(row) => {}
            END => {
                complete.extend(self.open.take().map(|(_, series)| series));
                return self.end(batch.column(1).as_binary::<i32>().value(row));
            }
            _ => return Err(wrong("a row is of no known kind")),
        }
        let number = numbers.value(row);
        let columns = self.columns(batch, row, number)?;
        self.counted.rows += 1;
        self.counted.samples += columns.ts_ms.len() as u64;
        self.budget.read_samples(columns.ts_ms.len() as u64);
        match &mut self.open {
            Some((open, series)) if *open == number => append(series, columns)?,
            open => {
                if open.as_ref().is_some_and(|(open, _)| *open > number) {
                    return Err(wrong("its series are not in order"));
                }
                complete.extend(open.replace((number, columns)).map(|(_, series)| series));
                self.next = number as usize + 1;
            }
        }
        Ok(())
    }

    fn end(&mut self, text: &[u8]) -> Result<(), AskError> {
        match serde_json::from_slice::<End>(text) {
            Ok(end) if end.failed.is_none() => {
                if end != self.counted {
                    return Err(wrong(format!(
                        "{} samples arrived of the {} that it says it sent",
                        self.counted.samples, end.samples
                    )));
                }
                self.is_over = true;
                self.next = self.labels.len();
                Ok(())
            }
            _ => Err(ended(text)),
        }
    }

    /// The samples of a row, checked.
    fn columns(&mut self, batch: &RecordBatch, row: usize, number: u32) -> Result<SeriesColumns, AskError> {
        let labels = self.labels.get(number as usize);
        let labels = labels.ok_or_else(|| wrong("a series has no name"))?.clone();
        let ts_ms = self.timeline(batch, row)?;
        let values = batch.column(5).as_list::<i32>();
        if values.is_null(row) {
            return Err(wrong("samples have no values"));
        }
        let values = values.value(row);
        let values = values.as_primitive::<Float64Type>();
        let starts = batch.column(6).as_list::<i32>();
        let starts = starts.is_valid(row).then(|| starts.value(row));
        let starts = starts.as_ref().map(|starts| starts.as_primitive::<Int64Type>());
        let histograms = batch.column(7).as_list::<i32>();
        let histograms = histograms.is_valid(row).then(|| histograms.value(row));
        let fit = |len: usize, nulls: usize| len == ts_ms.len() && nulls == 0;
        let lengths = fit(values.len(), values.null_count())
            && starts.is_none_or(|s| fit(s.len(), s.null_count()))
            && histograms.as_ref().is_none_or(|h| h.len() == ts_ms.len());
        if !lengths {
            return Err(wrong("its columns have different lengths"));
        }
        let histograms = histograms.map(|all| {
            let all = all.as_binary::<i32>();
            let one = |at: usize| match all.is_valid(at) {
                false => Some(None),
                true => Some(Some(Arc::new(super::histogram::take(all.value(at))?))),
            };
            (0..all.len()).map(one).collect::<Option<Vec<Option<Arc<Histogram>>>>>()
        });
        let histograms = match histograms {
            None => None,
            Some(all) => Some(all.ok_or_else(|| wrong("a histogram is none"))?),
        };
        Ok(SeriesColumns {
            labels,
            ts_ms,
            values: values.values().to_vec(),
            histograms,
            start_ts_ms: starts.map(|s| s.values().to_vec()),
            windows: None,
        })
    }

    fn timeline(&mut self, batch: &RecordBatch, row: usize) -> Result<Arc<[i64]>, AskError> {
        let numbers = batch.column(3).as_primitive::<UInt32Type>();
        let lists = batch.column(4).as_list::<i32>();
        let number = numbers.value(row);
        if numbers.is_null(row) {
            return Err(wrong("samples have no timestamps"));
        }
        if lists.is_null(row) {
            let known = self.timelines.iter().rev().find(|(known, _)| *known == number);
            return known.map(|(_, ts_ms)| ts_ms.clone()).ok_or_else(|| wrong("samples have no timestamps"));
        }
        let list = lists.value(row);
        let list = list.as_primitive::<Int64Type>();
        let ts_ms: Arc<[i64]> = list.values().to_vec().into();
        let ascending = ts_ms.windows(2).all(|w| w[0] < w[1]);
        let within = ts_ms.first().is_some_and(|first| *first >= self.range_ms.0)
            && ts_ms.last().is_some_and(|last| *last <= self.range_ms.1);
        if list.null_count() > 0 || !ascending || !within {
            return Err(wrong("its timestamps are not in order, or not those that were asked for"));
        }
        if self.timelines.len() >= TIMELINES {
            self.timelines.pop_front();
        }
        self.timelines.push_back((number, ts_ms.clone()));
        Ok(ts_ms)
    }
}

/// More samples of a series, later than those it has.
fn append(series: &mut SeriesColumns, more: SeriesColumns) -> Result<(), AskError> {
    if series.ts_ms.last() >= more.ts_ms.first() {
        return Err(wrong("its timestamps are not in order"));
    }
    let (had, has) = (series.values.len(), more.values.len());
    series.ts_ms = series.ts_ms.iter().chain(&*more.ts_ms).copied().collect();
    series.values.extend(more.values);
    if series.histograms.is_some() || more.histograms.is_some() {
        let all = series.histograms.get_or_insert_with(|| vec![None; had]);
        all.extend(more.histograms.unwrap_or_else(|| vec![None; has]));
    }
    if series.start_ts_ms.is_some() || more.start_ts_ms.is_some() {
        let all = series.start_ts_ms.get_or_insert_with(|| vec![0; had]);
        all.extend(more.start_ts_ms.unwrap_or_else(|| vec![0; has]));
    }
    Ok(())
}

impl SeriesCursor for RemoteCursor {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        if self.is_over && self.open.is_none() {
            return Ok(None);
        }
        let complete = self.read().map_err(|e| e.of(&self.from, span_text(self.range_ms)))?;
        Ok((!complete.is_empty()).then_some(complete))
    }

    fn labels_to_come(&self) -> Option<Vec<Labels>> {
        let first = self.open.as_ref().map_or(self.next, |(number, _)| *number as usize);
        Some(self.labels[first.min(self.labels.len())..].to_vec())
    }
}

impl Drop for RemoteCursor {
    fn drop(&mut self) {
        self.budget.release(self.reserved);
    }
}
