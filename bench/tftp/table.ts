/** The goals' table and what is told beside it, as text. */
import type { Goal, Reached } from './goals.ts';
import type { Driver } from './plan.ts';

/**
 * Formats rows in columns.
 *
 * @param drivers - those that were measured, a column each
 * @returns lines without a final newline
 */
export function formatTable(rows: readonly Reached[], drivers: readonly Driver[]): string {
  const cells = rows.map(({ goal, values, verdict }) => [
    goal.what,
    formatLimit(goal, goal.floor),
    formatLimit(goal, goal.goal),
    ...drivers.map((driver) => formatValue(goal, values[driver])),
    verdict,
  ]);
  const head = ['', 'floor', 'goal', ...drivers, 'verdict'];
  const widths = head.map((title, column) => Math.max(...[head, ...cells].map((row) => (row[column] ?? title).length)));
  const line = (row: readonly string[]): string => {
    const padded = row.map((cell, column) => {
      const isText = column === 0 || column === head.length - 1;
      return isText ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0);
    });
    return padded.join('  ').trimEnd();
  };
  return [line(head), ...cells.map(line)].join('\n');
}

/** `≥ 3 ×`, `≤ 2.5 s/GB`. */
function formatLimit(goal: Goal, limit: number | undefined): string {
  if (limit === undefined) return '';
  const sign = goal.better === 'more' ? '≥' : '≤';
  return `${sign} ${[limit, goal.unit].join(' ').trim()}`;
}

/** Two digits after the point below ten, one below a hundred. */
export function formatValue(goal: Pick<Goal, 'unit'>, value: number | undefined): string {
  if (value === undefined) return '–';
  const digits = Math.abs(value) < 10 ? 2 : 1;
  const number = Number.isInteger(value) || Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(digits);
  return [number, goal.unit].join(' ').trim();
}
