/**
 * The host of the small image: Debian's essential packages, busybox, and two packages that `_small-packages.ts` makes. A
 * definition as anybody writes one: `buildos image build test/system/_small-host.ts --lock …`.
 */
import * as apt from '../../properties/apt.ts';
import * as file from '../../properties/file.ts';
import type { Source } from '../../properties/property.ts';
import type { HostDefinition } from '../../properties/host-definition.ts';
import * as image from '../../properties/image.ts';
import * as kernel from '../../properties/kernel.ts';
import * as user from '../../properties/user.ts';

/** Packages of Debian's that every image needs for stage 1; the essential ones come along. */
export const REQUESTED: readonly string[] = ['busybox-static', 'libatomic1', 'libstdc++6'];

/** What may be changed about the image. */
export interface SmallInputs {
  /** Content of a file that one of the first properties writes. */
  readonly first: string;
  /** Content of a file that one of the last writes. */
  readonly text: string;
  /** A file of this machine: a program. */
  readonly program: Source;
  /** A property more, or not. */
  readonly user: boolean;
  /** Version of the package `tiny-data`, or not that package. */
  readonly data: string | undefined;
  /** A pattern more among what is left out. */
  readonly exclude: boolean;
  readonly note: string;
}

/** The definition for these inputs. */
export function smallHost(inputs: SmallInputs): HostDefinition {
  const { data } = inputs;
  return {
    name: 'small',
    summary: 'for a test',
    base: { distribution: 'debian', suite: 'trixie' },
    properties: [
      apt.installed([...REQUESTED, 'tiny-kernel', ...(data === undefined ? [] : ['tiny-data'])]),
      user.present({ name: 'build', uid: 1000, gid: 1000, home: '/build', shell: '/bin/sh' }),
      ...(inputs.user ? [user.present({ name: 'more', uid: 1001, gid: 1001, home: '/more', shell: '/bin/sh' })] : []),
      // A directory that goes away and comes again: what was below must not show through.
      file.absent('/etc/skel'),
      file.directory('/etc/skel'),
      file.hasContent('/etc/first.conf', inputs.first),
      file.hasAttributes('/etc/issue', { mode: 0o600 }),
      // So many that there is a checkpoint before those that follow.
      ...Array.from({ length: 12 }, (_, n) => kernel.option(`tiny.${n}=1`)),
      file.hasContent('/etc/tiny.conf', inputs.text),
      file.hasContent('/etc/buildos-note', inputs.note),
      image.excludes([
        'boot/*',
        'usr/share/doc',
        'var/log/*',
        ...(inputs.exclude ? ['usr/share/common-licenses'] : []),
      ]),
      file.hasFile('/usr/lib/program.mjs', inputs.program),
    ],
  };
}

/** With this very file as the program. */
export const host: HostDefinition = smallHost({
  first: 'first\n',
  text: 'hello\n',
  program: file.sourceOf(new URL(import.meta.url)),
  user: true,
  data: '1',
  exclude: false,
  note: '',
});
