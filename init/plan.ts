/**
 * What stage 1 does, decided from the options and from what was found. Pure.
 *
 * Two looks, two plans: the root's own files (who is `build`?) can be read only when the root is mounted. What Node itself
 * needs, first-steps.sh has done.
 */
import type { HostOptions, OptionProblem } from '../host/kernel-cmdline.ts';
import { BUSYBOX, IMAGE_NODE, LAYERS, LOWER, NEWROOT, NODE, UPPER, type Payload } from './layout.ts';
import { InitError, type Owner, type Step } from './step.ts';

/** What is known once the kernel's file systems are there. */
export interface RootFacts {
  readonly payload: Payload;
  /** What is there of each layer of the payload, in its order. */
  readonly layers: readonly {
    /** The size that the file has; undefined when it is not there. */
    readonly sizeBytes: number | undefined;
    /**
     * How much of it is really there, in whole pages: the kernel gives a file its full size before it unpacks the
     * content, so one that is cut short has the right size, and a hole at its end. Undefined where holes cannot be seen
     * (ramfs).
     */
    readonly storedBytes: number | undefined;
  }[];
  /** What is left of the space that the initramfs may use: half of RAM, by the kernel's default. */
  readonly initramfsFreeBytes: number;
  readonly memoryMiB: number;
}

/** What is known once the root is mounted. */
export interface HostFacts {
  readonly memoryMiB: number;
  /** /etc/passwd of the image. */
  readonly passwd: string;
}

/** What the host's steps are, and what had to be decided otherwise than asked. */
export interface HostPlan {
  readonly steps: readonly Step[];
  readonly problems: readonly OptionProblem[];
}

const ROOT: Owner = { uid: 0, gid: 0 };

/** The user that monitor, agents and bootstraps run as. */
const BUILD_USER = 'build';
const DEFAULT_TFTP_MIB = 1024;

/** Less free space than this, and the kernel stopped unpacking the initrd for lack of it. */
const FULL_BYTES = 64 * 1024;

const HINT_IMAGE = 'the image and stage 1 do not belong together: publish the image again, all files of it';

/** Last of all: whatever is mounted must be below the new root when the old one is emptied. */
export const MOVE_KERNEL_FILE_SYSTEMS: Step = {
  name: 'hand-over',
  hint: HINT_IMAGE,
  actions: [
    {
      kind: 'mount',
      mounts: ['/run', '/sys', '/dev', '/proc'].map((path) => ({
        type: 'move',
        source: path,
        target: `${NEWROOT}${path}`,
        makeTarget: true,
      })),
    },
  ],
};

/**
 * The root: read-only compressed files in RAM, one over the other, with a tmpfs above them.
 *
 * @throws {InitError} when the payload is not whole
 */
export function planRoot(options: HostOptions, facts: RootFacts): Step[] {
  checkPayload(facts);
  // The highest first, as overlayfs wants them.
  const lowers = facts.payload.layers.map((_, index) => `${LOWER}-${index + 1}`).reverse();
  const steps: Step[] = [];
  // Reading all of it costs seconds on a slow host, and the transfer has its own checksums: only when asked.
  if (options.initDebug) {
    steps.push({
      name: 'payload digest',
      hint: 'the initrd was changed on its way or by bad memory: compare it with SHA256SUMS, run a memory test',
      actions: facts.payload.layers.map(({ name, sha256 }) => ({
        kind: 'check-digest',
        file: `${LAYERS}/${name}`,
        sha256,
      })),
    });
  }
  steps.push({
    name: 'root file system',
    hint: 'the initrd may be damaged or cut short: boot with buildos.init_debug to have its digest checked',
    actions: [
      {
        kind: 'mount',
        mounts: [
          ...facts.payload.layers.map(
            ({ name }, index) =>
              ({
                type: 'squashfs',
                source: `${LAYERS}/${name}`,
                target: `${LOWER}-${index + 1}`,
                options: ['loop', 'ro'],
                makeTarget: true,
              }) as const,
          ),
          { type: 'tmpfs', source: 'root', target: UPPER, options: ['mode=0755', 'size=50%'], makeTarget: true },
        ],
      },
      {
        kind: 'make-folders',
        folders: ['data', 'work'].map((name) => ({ path: `${UPPER}/${name}`, mode: 0o755, owner: ROOT })),
      },
      {
        kind: 'mount',
        mounts: [
          {
            type: 'overlay',
            source: 'root',
            target: NEWROOT,
            options: [`lowerdir=${lowers.join(':')}`, `upperdir=${UPPER}/data`, `workdir=${UPPER}/work`],
            makeTarget: true,
          },
        ],
      },
    ],
  });
  return steps;
}

/**
 * What the host needs to know and have before systemd starts; all else is systemd's work.
 *
 * @throws {InitError} when the image has no user `build`
 */
export function planHost(options: HostOptions, facts: HostFacts): HostPlan {
  const build = findUser(facts.passwd, BUILD_USER);
  if (build === undefined) {
    throw new InitError('host', `The image has no user "${BUILD_USER}" in /etc/passwd`, { hint: HINT_IMAGE });
  }
  const { sizeMiB, problems } = limitTftpSize(options, facts.memoryMiB);
  const steps: Step[] = [
    {
      name: 'runtime',
      hint: HINT_IMAGE,
      actions: [
        {
          kind: 'mount',
          mounts: [{ type: 'bind', source: NODE, target: `${NEWROOT}${IMAGE_NODE}` }],
        },
      ],
    },
    {
      name: 'build folder',
      hint: HINT_IMAGE,
      actions: [
        {
          kind: 'mount',
          mounts: [
            {
              type: 'tmpfs',
              source: 'tftp',
              target: `${NEWROOT}/build/tftp`,
              options: ['nosuid', 'nodev', `size=${sizeMiB}m`, 'mode=0755', `uid=${build.uid}`, `gid=${build.gid}`],
              makeTarget: true,
            },
          ],
        },
        {
          kind: 'make-folders',
          folders: [
            { path: '/run/buildos', mode: 0o755, owner: ROOT },
            { path: '/run/buildos/agents', mode: 0o755, owner: build },
            { path: '/run/buildos/monitor', mode: 0o755, owner: build },
            ...(options.sshKeys.length === 0
              ? []
              : [{ path: `${NEWROOT}/build/.ssh`, mode: 0o700, owner: build } as const]),
          ],
        },
      ],
    },
  ];
  if (options.sshKeys.length > 0) {
    const content = options.sshKeys.map((key) => `${key}\n`).join('');
    const path = `${NEWROOT}/build/.ssh/authorized_keys`;
    steps.push({
      name: 'ssh keys',
      hint: HINT_IMAGE,
      actions: [{ kind: 'write-file', path, content, mode: 0o600, owner: build }],
    });
  }
  if (options.hostname !== undefined) {
    steps.push({
      name: 'host name',
      hint: HINT_IMAGE,
      actions: [{ kind: 'write-file', path: `${NEWROOT}/etc/hostname`, content: `${options.hostname}\n`, mode: 0o644 }],
    });
  }
  return { steps, problems };
}

/**
 * The program that takes over PID 1: the new root's init, or before that a shell.
 *
 * @returns words for execve(2); the first is the program
 */
export function planHandOver(options: HostOptions): readonly [program: string, ...args: string[]] {
  const switchRoot = ['switch_root', NEWROOT, '/sbin/init'] as const;
  if (!options.initShell) return [BUSYBOX, ...switchRoot];
  const script = [
    `${BUSYBOX} --install -s /bin`,
    'exec </dev/console >/dev/console 2>&1',
    `echo 'Build OS: a shell before the hand-over (buildos.init_shell). The new root is ${NEWROOT}; exit goes on.'`,
    `${BUSYBOX} setsid ${BUSYBOX} cttyhack ${BUSYBOX} sh`,
    `exec ${BUSYBOX} ${switchRoot.join(' ')}`,
  ];
  return [BUSYBOX, 'sh', '-c', script.join('\n')];
}

/** `buildos.tftp_size` or 1 GiB, but never more than a quarter of RAM. */
function limitTftpSize(options: HostOptions, memoryMiB: number): { sizeMiB: number; problems: OptionProblem[] } {
  const limit = Math.max(16, Math.floor(memoryMiB / 4));
  const asked = options.tftpSizeMiB;
  if (asked === undefined) return { sizeMiB: Math.min(DEFAULT_TFTP_MIB, limit), problems: [] };
  if (asked <= limit) return { sizeMiB: asked, problems: [] };
  const message = `lowered to ${limit} MiB, a quarter of this host's RAM`;
  return { sizeMiB: limit, problems: [{ name: 'buildos.tftp_size', value: `${asked}M`, message }] };
}

function checkPayload({ payload, layers, initramfsFreeBytes, memoryMiB }: RootFacts): void {
  const found = payload.layers.map(({ name, size }, index) => {
    const { sizeBytes = 0, storedBytes } = layers[index] ?? {};
    const there = Math.min(sizeBytes, storedBytes ?? sizeBytes);
    return { path: `${LAYERS}/${name}`, wanted: size, sizeBytes, there };
  });
  const broken = found.find(({ wanted, sizeBytes, there }) => sizeBytes !== wanted || there !== wanted);
  if (broken === undefined) return;
  const { path, wanted, sizeBytes, there } = broken;
  if (sizeBytes !== wanted && sizeBytes !== 0) {
    throw new InitError('payload', `${path} has ${sizeBytes} bytes, but stage 1 was made for one of ${wanted}`, {
      hint: 'the initrd is a mix of two builds: publish the image again, and compare it with SHA256SUMS',
    });
  }
  if (initramfsFreeBytes < FULL_BYTES) {
    // Half of RAM holds the initramfs; what is missing has to fit in there too.
    const missing = found.reduce((sum, each) => sum + each.wanted - each.there, 0);
    const needed = Math.ceil(memoryMiB + (2 * missing) / 2 ** 20 + 256);
    throw new InitError(
      'payload',
      `Not enough RAM to unpack the initrd: ${there} of ${wanted} bytes of ${path} fit, with ${memoryMiB} MiB in all`,
      { hint: `give this host at least ${needed} MiB` },
    );
  }
  throw new InitError('payload', `The initrd is cut short: only ${there} of ${wanted} bytes of ${path} are there`, {
    hint:
      'compare buildos-initrd on the boot server with SHA256SUMS and publish it again if it differs; ' +
      'if it is right, the transfer is cut: fetch it over HTTP rather than TFTP',
  });
}

function findUser(passwd: string, name: string): Owner | undefined {
  for (const line of passwd.split('\n')) {
    const [user, , uid, gid] = line.split(':');
    if (user === name && /^\d+$/.test(uid ?? '') && /^\d+$/.test(gid ?? ''))
      return { uid: Number(uid), gid: Number(gid) };
  }
  return undefined;
}
