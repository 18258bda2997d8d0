/** Groups, as /etc/group has them. */
import { z } from 'zod';
import { OWN } from './_file-change.ts';
import { arg, textThat } from './args.ts';
import type { Facts } from './facts.ts';
import { type HostWriter, type PropertyApplication, defineProperty } from './property.ts';

/** A group as it should be. */
export type GroupOptions = {
  readonly name: string;
  /** Default: the next free system id. */
  readonly gid?: number;
};

/** The schema of the name of a user or group. */
export const ACCOUNT_NAME: z.ZodType<string> = textThat(
  (name) => /^[a-z_][a-z0-9_-]{0,31}$/.test(name),
  'the name of a user or group',
);

/** The schema of the number of a user or group. */
export const ACCOUNT_ID: z.ZodType<number> = z.int().min(0).max(4_294_967_294);

/** The file. */
export const GROUP = '/etc/group';

const OPTIONS: z.ZodType<GroupOptions> = z.strictObject({ name: ACCOUNT_NAME, gid: ACCOUNT_ID.exactOptional() });

/** A group is there. Unapplied: it goes away. */
export const present: (group: GroupOptions) => PropertyApplication = defineProperty<[group: GroupOptions]>({
  id: 'group.present',
  kind: 'posix',
  describe: ({ name, gid }) => `group ${name}${gid === undefined ? '' : ` (${gid})`}`,
  about: 'A group is there. Unapplied: it goes away.',
  example: [{ name: 'builders', gid: 1234 }],
  args: [arg('group', OPTIONS, 'default: the next free system id')],
  manages: ({ name }) => [`group ${name}`],
  hostattrs: (_known, { name }) => ({ groups: [name] }),
  facts: () => [{ fact: 'text', path: GROUP }],
  check: ({ facts }, { name, gid }) => groupMatches(facts, name, gid),
  plan: ({ facts }, { name, gid }) => {
    const found = findLine(facts, GROUP, name)?.[2];
    return [found === undefined ? `${GROUP}: new group ${name}` : `${GROUP}: ${name}: ${found} → ${gid}`];
  },
  apply: async (host, { name, gid }) => await makeGroup(host, name, gid),
  checkUnapplied: ({ facts }, { name }) => findLine(facts, GROUP, name) === undefined,
  unapply: async (host, { name }) => void (await host.run(['groupdel', '--', name], OWN)),
});

/** The fields of a user or group in such a file; undefined when it is not there. */
export function findLine(facts: Facts, path: string, name: string): readonly string[] | undefined {
  const line = facts
    .text(path)
    ?.split('\n')
    .find((one) => one.startsWith(`${name}:`));
  return line?.split(':');
}

/** Whether a group is there, with that number if one is given. */
export function groupMatches(facts: Facts, name: string, gid: number | undefined): boolean {
  const fields = findLine(facts, GROUP, name);
  return fields !== undefined && (gid === undefined || fields[2] === String(gid));
}

/** Makes a group, or gives one that is there another number. */
export async function makeGroup(host: HostWriter, name: string, gid: number | undefined): Promise<void> {
  const id = gid === undefined ? [] : ['--gid', String(gid)];
  const known = findLine(host.facts, GROUP, name) !== undefined;
  await host.run(known ? ['groupmod', ...id, '--', name] : ['groupadd', '--system', ...id, '--', name], OWN);
}
