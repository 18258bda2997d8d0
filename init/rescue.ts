/**
 * When stage 1 cannot go on: say which step, why and what to try; offer a shell; else reboot after a pause. PID 1 must not
 * exit (the kernel would panic), so it becomes a busybox shell, which is there even when Node can do nothing more.
 */
import { BUSYBOX, RESCUE_SCRIPT } from './layout.ts';
import { InitError } from './step.ts';

/** How long somebody has to press Enter; also the shortest time between two boots that fail. */
const RESCUE_SECONDS = 60;

/** Words for execve(2) that make PID 1 the rescue shell. */
export const RESCUE_COMMAND: readonly [program: string, ...args: string[]] = [
  BUSYBOX,
  'sh',
  RESCUE_SCRIPT,
  BUSYBOX,
  String(RESCUE_SECONDS),
];

/**
 * The message for the console.
 *
 * @param error - whatever ended stage 1
 * @param step - the step it was in, when the error does not know
 */
export function describeFailure(error: unknown, step = 'start'): string {
  const known = error instanceof InitError;
  const why = error instanceof Error ? error.message : String(error);
  const hint = known ? error.hint : 'this is a fault of Build OS: report it with the lines below';
  const trace = !known && error instanceof Error ? [String(error.stack)] : [];
  return [
    '',
    '*** Build OS cannot start on this host ***',
    `  step: ${known ? error.step : step}`,
    `  why:  ${indent(why)}`,
    `  try:  ${indent(hint)}`,
    ...trace,
    '',
  ].join('\n');
}

function indent(text: string): string {
  return text.trimEnd().replaceAll('\n', '\n        ');
}
