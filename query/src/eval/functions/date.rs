//! Parts of a date in UTC, for times given as seconds since the epoch.

use model::labels::Labels;

use super::kernel::{Entry, Kernel};
use crate::column::Column;
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Frame, Row, Val};
use crate::plan::Call;
use crate::value::QueryError;

const fn date(name: &'static str) -> Entry {
    Entry { name, kernel: Kernel::Whole(run) }
}

pub static TABLE: &[Entry] = &[
    date("minute"),
    date("hour"),
    date("day_of_week"),
    date("day_of_month"),
    date("day_of_year"),
    date("days_in_month"),
    date("month"),
    date("year"),
];

/// Of every float of the vector, or of the time of evaluation where no vector is given.
fn run(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    let Some(f) = part(call.func.name) else {
        return Err(QueryError::internal(format!("{} is no part of a date", call.func.name)));
    };
    let Some(arg) = call.args.first() else {
        let values = (0..ev.steps.count).map(|s| f(ev.steps.at(s).div_euclid(1000) as f64)).collect();
        let row = Row { labels: Labels::empty(), drop_name: false, column: Column::full(values) };
        return Ok(Val::Vector(Frame { rows: vec![row] }));
    };
    let mut rows = Vec::new();
    for mut row in ev.eval_vector(arg)?.rows {
        (row.labels, row.drop_name) = ev.drop_name(row.labels);
        row.column.map_floats(f);
        rows.push(row);
    }
    ev.collect(rows).map(Val::Vector)
}

/// Year, month (1 to 12), day of the month (1 to 31) of a day counted from 1970-01-01; proleptic Gregorian
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The function of one time in seconds (cut to whole seconds toward zero, as upstream) behind a PromQL name.
pub fn part(name: &str) -> Option<fn(f64) -> f64> {
    /// What no 64-bit integer holds, NaN among it, is 2^63 seconds: there Go ends up on most machines.
    fn seconds(v: f64) -> i128 {
        const END: f64 = (1u64 << 63) as f64;
        if (-END..END).contains(&v) { i128::from(v as i64) } else { 1 << 63 }
    }
    fn day(v: f64) -> i64 {
        seconds(v).div_euclid(86_400) as i64
    }
    Some(match name {
        "minute" => |v| (seconds(v).rem_euclid(3600) / 60) as f64,
        "hour" => |v| (seconds(v).rem_euclid(86_400) / 3600) as f64,
        // 1970-01-01 was a Thursday, day 4 counted from Sunday.
        "day_of_week" => |v| (day(v) + 4).rem_euclid(7) as f64,
        "day_of_month" => |v| civil(day(v)).2 as f64,
        "day_of_year" => |v| {
            let (year, month, day_of_month) = civil(day(v));
            ((1..month).map(|m| days_in_month(year, m)).sum::<i64>() + day_of_month) as f64
        },
        "days_in_month" => |v| {
            let (year, month, _) = civil(day(v));
            days_in_month(year, month) as f64
        },
        "month" => |v| civil(day(v)).1 as f64,
        "year" => |v| civil(day(v)).0 as f64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_of_known_days() {
        let at = |name, seconds| part(name).unwrap()(seconds);
        assert_eq!(at("year", -1.0), 1969.0);
        assert_eq!(at("minute", -1.0), 59.0);
        assert_eq!(at("day_of_week", 0.0), 4.0);
        assert_eq!(at("days_in_month", 1_456_790_399.0), 29.0, "2016-02-29");
        assert_eq!(at("day_of_year", 1_483_228_799.0), 366.0, "2016-12-31");
        assert_eq!(at("year", f64::INFINITY), 292_277_026_596.0);
        assert_eq!((at("year", f64::NAN), at("day_of_year", f64::NAN)), (292_277_026_596.0, 339.0));
    }

    proptest! {
        #[test]
        fn dates_are_as_jiff_counts(seconds in -200_000_000_000i64..200_000_000_000) {
            let want = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::from_second(seconds).unwrap());
            let at = |name| part(name).unwrap()(seconds as f64);
            prop_assert_eq!(at("year"), f64::from(want.year()));
            prop_assert_eq!(at("month"), f64::from(want.month()));
            prop_assert_eq!(at("day_of_month"), f64::from(want.day()));
            prop_assert_eq!(at("day_of_year"), f64::from(want.day_of_year()));
            prop_assert_eq!(at("days_in_month"), f64::from(want.days_in_month()));
            prop_assert_eq!(at("day_of_week"), f64::from(want.weekday().to_sunday_zero_offset()));
            prop_assert_eq!(at("hour"), f64::from(want.hour()));
            prop_assert_eq!(at("minute"), f64::from(want.minute()));
        }
    }
}
