/** Properties that depend on where and when: inside an image, by the operating system, by time, as another user, elsewhere. */
import { z } from 'zod';
import { formatChainText, normaliseChain } from '../connections/chain.ts';
import { type Chain, type Hop, text } from '../connections/connection.ts';
import { checkHop } from '../connections/hops.ts';
import { OWN } from './_file-change.ts';
import { arg, textThat } from './args.ts';
import { isAbsolutePath } from './file.ts';
import { type HostDefinition, checkHostDefinition } from './host-definition.ts';
import {
  APPLICATION,
  FailedChangeError,
  type HostReader,
  type PropertyApplication,
  applicationDigest,
  defineCombinator,
  describeApplication,
} from './property.ts';

const CHILD = arg('child', APPLICATION, 'the property');
const PATH = textThat(isAbsolutePath, 'an absolute path without "//", "." and ".."');

/** For examples. */
const MOTD: PropertyApplication = { p: 'file.hasContent', a: ['/etc/motd', 'Welcome\n'] };

/**
 * One property inside an image being built, a chroot or a container; another, or nothing, on a host with a kernel of its
 * own. For what concerns the kernel, its name and clock, EFI variables and boot: those are the outside's.
 */
export const whenContained: (
  inside: PropertyApplication | null,
  outside?: PropertyApplication | null,
) => PropertyApplication = defineCombinator<[inside: PropertyApplication | null, outside?: PropertyApplication | null]>(
  {
    id: 'whenContained',
    about:
      'One property inside an image being built, a chroot or a container; another, or nothing, on a host with a kernel of ' +
      'its own. For what concerns the kernel, its name and clock, EFI variables and boot.',
    example: [null, { p: 'sysctl.loaded', a: ['/etc/sysctl.d/forward.conf'] }],
    args: [
      arg('inside', APPLICATION.nullable(), 'what holds inside; null: nothing'),
      arg('outside', APPLICATION.nullable().optional(), 'what holds on a host of its own; null or absent: nothing'),
    ],
    describe: (inside, outside) =>
      [
        ...(inside === null ? [] : [`inside an image: ${describeApplication(inside)}`]),
        ...(outside === null || outside === undefined ? [] : [`on a host: ${describeApplication(outside)}`]),
      ].join('; '),
    children: (inside, outside) => [inside, outside].filter((child) => child !== null && child !== undefined),
    plan: async (walk, inside, outside) => {
      const child = (await walk.host.isContained()) ? inside : outside;
      return child === null || child === undefined ? [] : await walk.plan(child);
    },
    planUnapplied: async (walk, inside, outside) => {
      const child = (await walk.host.isContained()) ? inside : outside;
      return child === null || child === undefined ? [] : await walk.planUnapplied(child);
    },
    apply: async (walk, inside, outside) => {
      const child = (await walk.host.isContained()) ? inside : outside;
      return child === null || child === undefined ? 'no-change' : await walk.apply(child);
    },
    unapply: async (walk, inside, outside) => {
      const child = (await walk.host.isContained()) ? inside : outside;
      return child === null || child === undefined ? 'no-change' : await walk.unapply(child);
    },
  },
);

/** Properties by operating system: `debian:trixie` or `debian:13`, `debian`, and `otherwise`. */
export type OsCases = Readonly<Record<string, PropertyApplication>>;

const OS_RELEASE = '/etc/os-release';

/**
 * The property for the operating system that is there, by its os-release(5): the most exact fits, `ID:VERSION_CODENAME` or
 * `ID:VERSION_ID` before `ID`, those of `ID_LIKE` after, `otherwise` last. None fits: a failure.
 */
export const osCase: (cases: OsCases) => PropertyApplication = defineCombinator<[cases: OsCases]>({
  id: 'osCase',
  about:
    'The property for the operating system that is there: of "debian:trixie", "debian:13", "debian" and "otherwise" the ' +
    'most exact one that fits.',
  example: [
    {
      'debian:trixie': { p: 'apt.installed', a: [['systemd-cryptsetup']] },
      otherwise: { p: 'apt.installed', a: [['cryptsetup']] },
    },
  ],
  args: [
    arg(
      'cases',
      z.record(z.string().regex(/^(otherwise|[a-z0-9._-]+(:[a-z0-9._-]+)?)$/), APPLICATION),
      'by os-release',
    ),
  ],
  describe: (cases) =>
    Object.entries(cases)
      .map(([os, child]) => `${os}: ${describeApplication(child)}`)
      .join('; '),
  children: (cases) => Object.values(cases),
  facts: () => [{ fact: 'text', path: OS_RELEASE }],
  plan: (walk, cases) => walk.plan(chooseOs(walk.host, cases)),
  planUnapplied: (walk, cases) => walk.planUnapplied(chooseOs(walk.host, cases)),
  apply: (walk, cases) => walk.apply(chooseOs(walk.host, cases)),
  unapply: (walk, cases) => walk.unapply(chooseOs(walk.host, cases)),
});

function chooseOs(host: HostReader, cases: OsCases): PropertyApplication {
  const release = new Map(
    (host.facts.text(OS_RELEASE) ?? '').split('\n').map((line): [string, string] => {
      const equals = line.indexOf('=');
      return [line.slice(0, equals), line.slice(equals + 1).replaceAll(/^["']|["']$/g, '')];
    }),
  );
  const id = release.get('ID') ?? 'unknown';
  const exact = ['VERSION_CODENAME', 'VERSION_ID'].map((key) => `${id}:${release.get(key) ?? ''}`);
  const keys = [...exact, id, ...(release.get('ID_LIKE') ?? '').split(' '), 'otherwise'];
  const found = keys.find((key) => Object.hasOwn(cases, key));
  const child = found === undefined ? undefined : cases[found];
  if (child !== undefined) return child;
  throw new FailedChangeError(
    `Cannot choose by operating system: it is ${exact.join(' or ')}, and there are ${Object.keys(cases).join(', ')}`,
    { hint: 'Add a case for it, or one for "otherwise".' },
  );
}

/** A property applied unless a file is there, which is made afterwards: done once, whatever becomes of its result. */
export const withFlagfile: (path: string, child: PropertyApplication) => PropertyApplication = defineCombinator<
  [path: string, child: PropertyApplication]
>({
  id: 'withFlagfile',
  about: 'A property applied unless a file is there, which is made afterwards. Unapplied: the file goes away too.',
  example: ['/var/lib/my-host/greeted', MOTD],
  args: [arg('path', PATH, 'the file'), CHILD],
  describe: (path, child) => `${describeApplication(child)} (once: ${path})`,
  children: (_path, child) => [child],
  facts: (path) => [{ fact: 'file', path }],
  plan: async (walk, path, child) => (walk.host.facts.file(path) === undefined ? await walk.plan(child) : []),
  apply: async (walk, path, child) => {
    if (walk.host.facts.file(path) !== undefined) return 'no-change';
    await walk.apply(child);
    await walk.host.run(
      ['sh', '-c', 'mkdir -p -- "$(dirname -- "$1")" && : > "$1" && sync -- "$1"', 'flag', path],
      OWN,
    );
    return 'changed';
  },
  unapply: async (walk, path, child) => {
    const outcome = await walk.unapply(child);
    await walk.host.run(['rm', '-f', '--', path], OWN);
    return outcome;
  },
});

/** How often {@link atMost} lets a property be applied: a word, or seconds. */
export type Interval = 'hourly' | 'daily' | 'weekly' | 'monthly' | number;

const SECONDS = { hourly: 3600, daily: 86_400, weekly: 604_800, monthly: 2_592_000 } as const;

/** When each property of {@link atMost} was last applied: a file with the host's own clock, in seconds. */
const STAMPS = '/var/lib/buildos/at-most';

/** A property applied at most so often, such as fetching package lists once a day. */
export const atMost: (interval: Interval, child: PropertyApplication) => PropertyApplication = defineCombinator<
  [interval: Interval, child: PropertyApplication]
>({
  id: 'atMost',
  about: 'A property applied at most so often; when, is kept on the host.',
  example: ['daily', { p: 'apt.upgraded', a: [] }],
  args: [
    arg(
      'interval',
      z.union([z.enum(['hourly', 'daily', 'weekly', 'monthly']), z.number().positive()]),
      'a word, or seconds',
    ),
    CHILD,
  ],
  describe: (interval, child) =>
    `${describeApplication(child)} (${typeof interval === 'number' ? `every ${interval} s` : interval} at most)`,
  children: (_interval, child) => [child],
  facts: (_interval, child) => [{ fact: 'text', path: stampOf(child) }],
  plan: async (walk, interval, child) => ((await isDue(walk.host, interval, child)) ? await walk.plan(child) : []),
  apply: async (walk, interval, child) => {
    if (!(await isDue(walk.host, interval, child))) return 'no-change';
    const outcome = await walk.apply(child);
    const script = 'mkdir -p "$1" && date +%s > "$2.tmp" && mv -f "$2.tmp" "$2"';
    await walk.host.run(['sh', '-c', script, 'stamp', STAMPS, stampOf(child)], OWN);
    return outcome;
  },
  unapply: async (walk, _interval, child) => {
    const outcome = await walk.unapply(child);
    await walk.host.run(['rm', '-f', '--', stampOf(child)], OWN);
    return outcome;
  },
});

async function isDue(host: HostReader, interval: Interval, child: PropertyApplication): Promise<boolean> {
  const last = Number(host.facts.text(stampOf(child)) ?? Number.NaN);
  const now = Number(text(await host.run(['date', '+%s'])));
  const seconds = typeof interval === 'number' ? interval : SECONDS[interval];
  // A stamp of the future is of a clock that was wrong.
  return !(last <= now && now < last + seconds);
}

const stampOf = (child: PropertyApplication): string => `${STAMPS}/${applicationDigest(child).slice(0, 32)}`;

const NAME = /^[a-z_][a-z0-9_-]{0,31}$/;

/** A property applied as another user of the host. */
export const as: (user: string, child: PropertyApplication) => PropertyApplication = defineCombinator<
  [user: string, child: PropertyApplication]
>({
  id: 'as',
  about: 'A property applied as another user of the host.',
  example: ['build', { p: 'file.hasContent', a: ['/build/note', 'mine\n', { owner: 'build' }] }],
  args: [
    arg(
      'user',
      textThat((user) => NAME.test(user), 'the name of a user'),
      'who',
    ),
    CHILD,
  ],
  describe: (user, child) => `as ${user}: ${describeApplication(child)}`,
  children: (_user, child) => [child],
  plan: async (walk, user, child) => {
    await using inner = await walk.through(becoming(user));
    return await inner.plan(child);
  },
  planUnapplied: async (walk, user, child) => {
    await using inner = await walk.through(becoming(user));
    return await inner.planUnapplied(child);
  },
  apply: async (walk, user, child) => {
    await using inner = await walk.through(becoming(user));
    return await inner.apply(child);
  },
  unapply: async (walk, user, child) => {
    await using inner = await walk.through(becoming(user));
    return await inner.unapply(child);
  },
});

const becoming = (user: string): readonly Hop[] => [['as', { user }]];

/** Another host definition, deployed through more hops: from a host into its containers, or to another host from there. */
export const deploys: (hops: Chain, host: HostDefinition) => PropertyApplication = defineCombinator<
  [hops: Chain, host: HostDefinition]
>({
  id: 'deploys',
  about:
    'Another host definition, deployed through more hops: from a host into its containers or chroots. What it applied is ' +
    'remembered over there.',
  example: [
    [['chroot', { into: '/srv/inner' }]],
    { name: 'inner', summary: 'a root inside', base: { distribution: 'debian', suite: 'trixie' }, properties: [MOTD] },
  ],
  args: [
    arg('hops', z.custom<Chain>(Array.isArray).meta({ title: 'Chain' }), 'such as [["chroot", { into: "/srv/x" }]]'),
    arg(
      'host',
      z
        .custom<HostDefinition>((value) => typeof value === 'object' && value !== null)
        .meta({ title: 'HostDefinition' }),
      'the definition',
    ),
  ],
  refuse: (hops, host) => {
    hopsOf(hops);
    checkHostDefinition(host, 'the host to deploy');
  },
  describe: (hops, host) => `${host.name} over ${formatChainText(hops)}`,
  children: () => [],
  plan: async (walk, hops, host) => await walk.planHost(hopsOf(hops), host),
  apply: async (walk, hops, host) => await walk.deploy(hopsOf(hops), host),
});

/** The hops without `local`, which only a whole chain begins with. */
function hopsOf(hops: Chain): readonly Hop[] {
  const checked = normaliseChain(hops).slice(1);
  for (const hop of checked) checkHop(hop);
  return checked;
}
