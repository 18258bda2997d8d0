/**
 * When stage 1 cannot go on: say which step, why and what to try; offer a shell; else reboot after a pause. PID 1 must not
 * exit (the kernel would panic), so it becomes a busybox shell, which is there even when Node can do nothing more.
 */
import { BUSYBOX } from './layout.ts';
import { InitError } from './step.ts';

/** How long somebody has to press Enter; also the shortest time between two boots that fail. */
export const RESCUE_SECONDS = 60;

/** The prompt is on /dev/console, the last `console=` of the command line. Only built-ins and $0, no PATH. */
const SCRIPT = `
exec </dev/console >/dev/console 2>&1
"$0" --install -s /bin
before=$("$0" date +%s)
echo "Press Enter within $1 s for a shell; else this host reboots and tries again."
if read -r -t "$1" answer; then
  echo 'Build OS: rescue shell. exit reboots this host.'
  "$0" setsid "$0" cttyhack "$0" sh
else
  # read came back at once: nobody can type on this console. Wait all the same, or a farm would hammer its boot server.
  "$0" sleep $((before + $1 - $("$0" date +%s)))
fi
echo 'Build OS: rebooting.'
"$0" reboot -f
"$0" sleep 10
echo b >/proc/sysrq-trigger
while :; do "$0" sleep 3600; done`;

/** Words for execve(2) that make PID 1 the rescue shell. */
export const RESCUE_COMMAND: readonly [program: string, ...args: string[]] = [
  BUSYBOX,
  'sh',
  '-c',
  SCRIPT,
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
