/** Commands run by timers of systemd. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { definePropertyList } from './combinators.ts';
import { ACCOUNT_NAME } from './group.ts';
import type { PropertyApplication } from './property.ts';
import { enabled, started, unit } from './systemd.ts';

/** When and what. */
export type TimerOptions = {
  /** A calendar event (systemd.time(7)): `daily`, `Mon..Fri 06:30`. */
  readonly calendar: string;
  /** The command, as ExecStart= has it (systemd.service(5)): an absolute path and arguments. */
  readonly command: string;
  /** Default root. */
  readonly user?: string;
  /** Missed while the host was off: made up for at the next boot; default false. */
  readonly persistent?: boolean;
  /** The most by which a start is put off, so that not all hosts begin at once, in seconds; default 0. */
  readonly spreadSeconds?: number;
};

const LINE = /^[^\n\\]*\S[^\n\\]*$/;

const OPTIONS: z.ZodType<TimerOptions> = z.strictObject({
  calendar: textThat(
    (text) => /^[A-Za-z0-9*:,./~ _-]+$/.test(text),
    'a calendar event such as "daily" (systemd.time(7))',
  ),
  command: textThat((text) => text.startsWith('/') && LINE.test(text), 'one line that begins with an absolute path'),
  user: ACCOUNT_NAME.exactOptional(),
  persistent: z.boolean().exactOptional(),
  spreadSeconds: z.int().min(0).exactOptional(),
});

/** A command is run by a timer. Unapplied: it no longer is. */
export const runs: (name: string, timer: TimerOptions) => PropertyApplication = definePropertyList<
  [name: string, timer: TimerOptions]
>({
  id: 'timer.runs',
  about:
    'A command is run by systemd when it is time: NAME.timer starts NAME.service, at each boot, and on a live host from now on. Unapplied: timer ' +
    'and service go away.',
  example: ['backup', { calendar: '03:30', command: '/usr/bin/tar -cf /srv/backup.tar /etc', persistent: true }],
  args: [
    arg(
      'name',
      textThat((name) => /^[A-Za-z0-9_.-]{1,200}$/.test(name), 'letters, digits, "_", "." and "-"'),
      'of the two units',
    ),
    arg('timer', OPTIONS, 'when, what, as whom (default root)'),
  ],
  describe: (name, { calendar }) => `${name} runs at ${calendar}`,
  properties: (name, options) => [
    unit(`${name}.service`, serviceText(name, options)),
    unit(`${name}.timer`, timerText(name, options)),
    enabled([`${name}.timer`]),
    started([`${name}.timer`]),
  ],
});

function serviceText(name: string, { command, user }: TimerOptions): string {
  const run = [`ExecStart=${command}`, ...(user === undefined ? [] : [`User=${user}`])];
  return ['[Unit]', `Description=${name}`, '[Service]', 'Type=oneshot', ...run, ''].join('\n');
}

function timerText(name: string, { calendar, persistent = false, spreadSeconds = 0 }: TimerOptions): string {
  const when = [
    `OnCalendar=${calendar}`,
    ...(persistent ? ['Persistent=yes'] : []),
    ...(spreadSeconds > 0 ? [`RandomizedDelaySec=${spreadSeconds}`] : []),
  ];
  return ['[Unit]', `Description=${name}`, '[Timer]', ...when, '[Install]', 'WantedBy=timers.target', ''].join('\n');
}
