/** Why there is no answer, and what to do; what passes by itself is asked again. */
import { useEffect } from 'preact/hooks';
import type { Failure } from '../api';
import { charOf } from '../editor/source';

const TITLES: Record<string, string> = {
  bad_data: 'The query is not right', execution: 'The query could not be carried out', timeout: 'The query took too long', canceled: 'The query was cancelled', unavailable: 'Not available', internal: 'The server could not answer',
  unreachable: 'The server is out of reach', starting: 'The server is starting', stopping: 'The server is stopping', unauthorized: 'The server wants to know who asks', too_many: 'Too much at once', broken: 'Half an answer', missing: 'This server has no such view', page: 'The page stumbled',
};
const ADVICE: Record<string, string> = {
  timeout: 'A shorter range, a longer step or fewer series cost less: Explain shows which part.', unreachable: 'What you typed stays. It is asked again as soon as the server answers.', starting: 'It reads its log again. It is asked again in a moment.', stopping: 'It is asked again as soon as the server is back.',
  unauthorized: 'Ask again to be asked for a password where this server has passwords; where it is behind a proxy, sign in there. What you typed stays, and the address has it as well.', too_many: 'It is asked again by itself.', internal: 'The log of the server, or of the proxy before it, says more. What you typed stays.', broken: 'The connection or the server ended before the answer did. Run it again.',
};
/** Those that pass by themselves. */
const PASSING = new Set(['unreachable', 'starting', 'stopping', 'too_many']);

export function Failed({ failure, expr = '', retry }: { failure: Failure; expr?: string; retry?(): void }) {
  useEffect(() => {
    if (!retry || !PASSING.has(failure.kind)) return;
    const t = setTimeout(retry, Math.max(2000, failure.retryAfterSeconds * 1000));
    return () => clearTimeout(t);
  }, [failure]);
  const place = /(\d+):(\d+): parse error: ([\s\S]*)/.exec(failure.message);
  const line = place ? expr.split('\n')[Number(place[1]) - 1] ?? '' : '', column = place ? charOf(line, Number(place[2]) - 1) : 0;
  const from = Math.max(0, column - 300);
  const passing = PASSING.has(failure.kind);
  return <div class={'note ' + (passing ? 'warn' : 'bad')} role="alert">
    <b>{TITLES[failure.kind] ?? 'No answer'}</b>
    {failure.message.replace(/\.$/, '') !== TITLES[failure.kind] && <p>{place ? place[3].slice(0, 2000) : failure.message.slice(0, 3000)}{failure.message.length > 3000 ? '…' : ''}</p>}
    {place && line && <pre>{line.slice(from, from + 400) + '\n' + ' '.repeat(column - from) + '^'}</pre>}
    {ADVICE[failure.kind] && <p>{ADVICE[failure.kind]}</p>}
    {retry && <p>{!place && <button type="button" class="small" onClick={retry}>Ask again</button>}{passing && <span class="soft"> asking again by itself</span>}</p>}
  </div>;
}
