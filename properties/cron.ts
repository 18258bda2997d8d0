/** Jobs of cron(8). Where systemd runs, timer.runs() needs no package. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { definePropertyList } from './combinators.ts';
import { hasContent } from './file.ts';
import { ACCOUNT_NAME } from './group.ts';
import type { PropertyApplication } from './property.ts';

/** A job of cron. */
export type CronJob = {
  /** Minute, hour, day, month, weekday; or `@daily` and its kind. */
  readonly schedule: string;
  /** A line for sh. */
  readonly command: string;
  /** Default root. */
  readonly user?: string;
};

const FIELD = String.raw`[0-9A-Za-z*,/-]+`;
const SCHEDULE = new RegExp(`^(@(reboot|hourly|daily|weekly|monthly|yearly)|${FIELD}( ${FIELD}){4})$`);

const JOB: z.ZodType<CronJob> = z.strictObject({
  schedule: textThat((text) => SCHEDULE.test(text), 'five fields such as "30 3 * * *", or "@daily"'),
  command: textThat((text) => /^[^\n]*\S[^\n]*$/.test(text), 'one line'),
  user: ACCOUNT_NAME.exactOptional(),
});

/** A command is run by cron: /etc/cron.d/NAME. */
export const job: (name: string, job: CronJob) => PropertyApplication = definePropertyList<
  [name: string, job: CronJob]
>({
  id: 'cron.job',
  about:
    'A command is run by cron, from /etc/cron.d/NAME. The package cron has to be there; timer.runs() needs none. Unapplied: the ' +
    'job goes away.',
  example: ['backup', { schedule: '30 3 * * *', command: 'tar -cf /srv/backup.tar /etc' }],
  args: [
    arg(
      'name',
      textThat((name) => /^[A-Za-z0-9_-]+$/.test(name), 'letters, digits, "_" and "-": cron reads no other file'),
      'of the file',
    ),
    arg('job', JOB, 'when, what, and as whom (default root)'),
  ],
  describe: (name, { schedule }) => `cron runs ${name} at ${schedule}`,
  // cron takes a bare % for the end of the line.
  properties: (name, { schedule, command, user = 'root' }) => [
    hasContent(`/etc/cron.d/${name}`, `${schedule} ${user} ${command.replaceAll(/(?<!\\)%/g, '\\%')}\n`),
  ],
});
