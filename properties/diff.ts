/** Differences of texts, as a unified diff. */

/** Unchanged lines shown around a change. */
const CONTEXT = 3;
/** Beyond this many comparisons the differing middle is shown as one block. */
const MOST_CELLS = 4_000_000;

/**
 * A unified diff as `diff -u` makes it, without times.
 *
 * @returns no lines when the texts are the same
 */
export function unifiedDiff(path: string, before: string | undefined, after: string | undefined): string[] {
  if (before === after) return [];
  const marks = markLines(splitLines(before), splitLines(after));
  const hunks = hunksOf(marks);
  return [
    `--- ${before === undefined ? '/dev/null' : path}`,
    `+++ ${after === undefined ? '/dev/null' : path}`,
    ...hunks,
  ];
}

/** One line of an edit: ` ` stays, `-` goes, `+` comes. */
type Mark = readonly [sign: ' ' | '-' | '+', line: string];

/** Lines; a missing last newline is shown as diff(1) shows it. */
function splitLines(text: string | undefined): string[] {
  if (text === undefined || text === '') return [];
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  else lines[lines.length - 1] = `${lines.at(-1)}\n\\ No newline at end of file`;
  return lines;
}

function markLines(before: readonly string[], after: readonly string[]): Mark[] {
  const least = Math.min(before.length, after.length);
  let head = 0;
  while (head < least && before[head] === after[head]) head++;
  let tail = 0;
  while (tail < least - head && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  const stay = (line: string): Mark => [' ', line];
  return [
    ...before.slice(0, head).map(stay),
    ...markMiddle(before.slice(head, before.length - tail), after.slice(head, after.length - tail)),
    ...before.slice(before.length - tail).map(stay),
  ];
}

/** The longest common subsequence, by the table of its lengths. */
function markMiddle(before: readonly string[], after: readonly string[]): Mark[] {
  const width = after.length + 1;
  if ((before.length + 1) * width > MOST_CELLS) {
    return [...before.map((line): Mark => ['-', line]), ...after.map((line): Mark => ['+', line])];
  }
  const longest = new Uint32Array((before.length + 1) * width);
  const at = (i: number, j: number): number => longest[i * width + j] ?? 0;
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      longest[i * width + j] = before[i] === after[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const marks: Mark[] = [];
  let i = 0;
  let j = 0;
  while (i < before.length || j < after.length) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      marks.push([' ', before[i] ?? '']);
      i++;
      j++;
    } else if (i < before.length && (j >= after.length || at(i + 1, j) >= at(i, j + 1)))
      marks.push(['-', before[i++] ?? '']);
    else marks.push(['+', after[j++] ?? '']);
  }
  return marks;
}

/** Changes with their context, those that are near each other together. */
function hunksOf(marks: readonly Mark[]): string[] {
  const shown = new Set<number>();
  for (const [index, [sign]] of marks.entries()) {
    if (sign === ' ') continue;
    for (let near = index - CONTEXT; near <= index + CONTEXT; near++) shown.add(near);
  }
  const lines: string[] = [];
  const next = { '-': 1, '+': 1 };
  let hunk: Mark[] = [];
  let start = { ...next };
  const close = (): void => {
    if (hunk.length === 0) return;
    const count = (sign: '-' | '+'): number => hunk.filter(([mark]) => mark === ' ' || mark === sign).length;
    const range = (sign: '-' | '+'): string => {
      const size = count(sign);
      // diff(1): an empty range stands after the line before it; a single line has no count
      return `${sign}${size === 0 ? start[sign] - 1 : start[sign]}${size === 1 ? '' : `,${size}`}`;
    };
    lines.push(`@@ ${range('-')} ${range('+')} @@`, ...hunk.flatMap(([sign, line]) => `${sign}${line}`.split('\n')));
    hunk = [];
  };
  for (const [index, mark] of marks.entries()) {
    if (shown.has(index)) {
      if (hunk.length === 0) start = { ...next };
      hunk.push(mark);
    } else close();
    if (mark[0] !== '+') next['-']++;
    if (mark[0] !== '-') next['+']++;
  }
  close();
  return lines;
}
