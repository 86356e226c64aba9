/** Every function and aggregation: how it is called and what it does, as completion and hovering show it. */

export interface Term { name: string; call: string; help: string; aggregation: boolean }

/** A line each: call, then help. `v` is what a selector gives, `r` the same with a range such as [5m]. */
const FUNCTIONS = `
abs(v)	Absolute value.
absent(v)	1 where v has no series at all, with the labels of its equality matchers; else nothing.
absent_over_time(r)	1 where r has no sample in the whole range; else nothing.
acos(v)	Arc cosine, in radians.
acosh(v)	Inverse hyperbolic cosine.
asin(v)	Arc sine, in radians.
asinh(v)	Inverse hyperbolic sine.
atan(v)	Arc tangent, in radians.
atanh(v)	Inverse hyperbolic tangent.
avg_over_time(r)	Average of all samples in the range, of each series.
ceil(v)	Up to the next integer.
changes(r)	How often the value changed in the range.
clamp(v, min, max)	Values below min become min, above max become max.
clamp_max(v, max)	Values above max become max.
clamp_min(v, min)	Values below min become min.
cos(v)	Cosine of radians.
cosh(v)	Hyperbolic cosine.
count_over_time(r)	Number of samples in the range.
day_of_month(v)	Day 1 to 31 of a Unix time, in UTC; of now without an argument.
day_of_week(v)	0 is Sunday, 6 Saturday, in UTC.
day_of_year(v)	Day 1 to 366, in UTC.
days_in_month(v)	28 to 31.
deg(v)	Radians to degrees.
delta(r)	Difference between last and first value of a gauge, extrapolated to the whole range.
deriv(r)	Slope per second of a gauge, by linear regression.
double_exponential_smoothing(r, smoothing, trend)	Smoothed value, recent samples weigh more; both factors between 0 and 1.
end()	End of the query, as Unix time.
exp(v)	e to the power of v.
first_over_time(r)	First sample of the range.
floor(v)	Down to the next integer.
histogram_avg(v)	Mean of the observations of a native histogram.
histogram_count(v)	Number of observations of a native histogram.
histogram_fraction(lower, upper, v)	Share of observations between two bounds.
histogram_quantile(q, v)	The value below which the share q of observations lies, 0.9 for nine of ten. Classic buckets need sum by (le) first.
histogram_quantiles(v, "label", q...)	Several quantiles at once, told apart by a label.
histogram_stddev(v)	Estimated standard deviation of a native histogram.
histogram_stdvar(v)	Estimated variance of a native histogram.
histogram_sum(v)	Sum of the observations of a native histogram.
hour(v)	Hour 0 to 23 of a Unix time, in UTC.
idelta(r)	Difference between the last two samples of a gauge.
increase(r)	How much a counter grew in the range, restarts corrected, extrapolated to the whole range.
info(v, {selector})	Adds labels of info metrics such as target_info.
irate(r)	Growth per second of a counter between its last two samples: for graphs that move fast.
label_join(v, "to", "separator", "from"...)	Joins values of labels into one.
label_replace(v, "to", "$1", "from", "(.*)")	Sets a label from another by a regular expression.
last_over_time(r)	Latest sample of the range: bridges gaps longer than five minutes.
ln(v)	Natural logarithm.
log10(v)	Decimal logarithm.
log2(v)	Binary logarithm.
mad_over_time(r)	Median absolute deviation of the range.
max_of(a, b)	The larger of two numbers.
max_over_time(r)	Largest sample of the range.
min_of(a, b)	The smaller of two numbers.
min_over_time(r)	Smallest sample of the range.
minute(v)	Minute 0 to 59 of a Unix time.
month(v)	Month 1 to 12 of a Unix time, in UTC.
pi()	3.14159…
predict_linear(r, seconds)	Value of a gauge so many seconds ahead, by linear regression.
present_over_time(r)	1 where there is any sample in the range.
quantile_over_time(q, r)	The value below which the share q of the range's samples lies.
rad(v)	Degrees to radians.
range()	Range of the query in seconds.
rate(r)	Growth per second of a counter over the range, restarts corrected. Apply it before sum.
resets(r)	How often a counter began anew in the range.
round(v, to)	To the nearest multiple, of 1 where none is given.
scalar(v)	The value of the only series as a number; NaN where there is not exactly one.
sgn(v)	-1, 0 or 1 by the sign.
sin(v)	Sine of radians.
sinh(v)	Hyperbolic sine.
sort(v)	By value, smallest first.
sort_by_label(v, "label"...)	By values of labels, in natural order.
sort_by_label_desc(v, "label"...)	By values of labels, backwards.
sort_desc(v)	By value, largest first.
sqrt(v)	Square root.
start()	Start of the query, as Unix time.
start_timestamp(v)	When the counter of the sample began.
stddev_over_time(r)	Standard deviation of the range.
stdvar_over_time(r)	Variance of the range.
step()	Step of the query in seconds.
sum_over_time(r)	Sum of all samples of the range.
tan(v)	Tangent of radians.
tanh(v)	Hyperbolic tangent.
time()	Now, or the step's time, as Unix time.
timestamp(v)	When each sample was taken, as Unix time.
ts_of_first_over_time(r)	When the first sample of the range was taken.
ts_of_last_over_time(r)	When the last sample of the range was taken.
ts_of_max_over_time(r)	When the range was at its largest.
ts_of_min_over_time(r)	When the range was at its smallest.
vector(s)	A number as a series without labels.
year(v)	Year of a Unix time, in UTC.`;
const AGGREGATIONS = `
avg(v)	Average of all series, or of each group by (label).
bottomk(k, v)	The k smallest series of each group, with all their labels.
count(v)	Number of series.
count_values("label", v)	How many series have each value, which goes into a label.
group(v)	1 for each group.
limit_ratio(share, v)	A share of the series, always the same ones.
limitk(k, v)	Any k series.
max(v)	Largest of all series.
min(v)	Smallest of all series.
quantile(q, v)	The value below which the share q of the series lies.
stddev(v)	Standard deviation over series.
stdvar(v)	Variance over series.
sum(v)	Sum of all series, or of each group by (label).
topk(k, v)	The k largest series of each group at each step, with all their labels.`;

const parse = (text: string, aggregation: boolean): Term[] => text.trim().split('\n').map(line => {
  const [call, help] = line.split('\t');
  return { name: call.slice(0, call.indexOf('(')), call, help, aggregation };
});
export const TERMS = [...parse(FUNCTIONS, false), ...parse(AGGREGATIONS, true)];
export const TERM = new Map(TERMS.map(t => [t.name, t]));

/** Words between expressions. */
export const KEYWORDS: [string, string][] = [
  ['by', 'Groups of an aggregation: by (label, …)'], ['without', 'Groups by all labels but these'], ['on', 'Match both sides on these labels only'], ['ignoring', 'Match both sides on all labels but these'],
  ['group_left', 'Many on the left match one on the right'], ['group_right', 'Many on the right match one on the left'], ['offset', 'Look at an earlier time: offset 1d'], ['bool', 'Compare to 0 or 1 instead of filtering'],
  ['and', 'Series of the left that the right has too'], ['or', 'Series of the left, and those of the right that it lacks'], ['unless', 'Series of the left that the right lacks'], ['atan2', 'Angle of two sides'],
  ['fill', 'Value for what is missing on either side'], ['fill_left', 'Value for what is missing on the left'], ['fill_right', 'Value for what is missing on the right'],
];
