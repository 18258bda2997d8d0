/**
 * The whole product on one machine, step by step: image → machine → PXE → toolchain → task → log over TFTP → a new image → reboot.
 *
 * Each step is a title and what it does; who shows them decides how. Steps share what they found in one record, in order.
 * The folder of a demo:
 *
 *     <work>/demo/www/          what the lab serves: image/, toolchain/, sources/
 *     <work>/demo/console.log   everything the host's serial console said
 *     <work>/demo/build.log     the build's log, as read over TFTP
 *     <work>/demo/results/      what came back to the controller: result.json, a log per operation, upload.tar
 *     <work>/demo/boot-1.svg    boot charts
 */
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { openLocal } from '../connections/local.ts';
import type { TaskView } from '../controller/task-view.ts';
import { fetchSourceArchive, findMirror } from '../host/apt.ts';
import type { Accelerator, Firmware } from '../host/qemu.ts';
import { buildImage } from '../image/build.ts';
import type { BuiltImage } from '../image/built-image.ts';
import { buildHost } from '../image/hosts/build-host.ts';
import { publishImage } from '../image/publish/publish.ts';
import { type CreatedMachine, createMachine } from '../machines/create.ts';
import { BMAKE, publishBmake } from '../toolchains/bmake.ts';
import { TOOLCHAIN_LIST } from '../toolchains/publish.ts';
import { acceleratorArgs, findAccelerator } from './accelerator.ts';
import { DemoError } from './demo-error.ts';
import { type DemoOutcome, writeOutcome } from './demo-outcome.ts';
import { runTask } from './demo-task.ts';
import { makeStateDisk } from './disks.ts';
import { Guest } from './guest.ts';
import { type Lab, openLab } from './lab.ts';
import { LAB_ADDRESS } from './network.ts';
import { type StatusReading, waitForStatus } from './status.ts';

/** The package that the demo builds, in Debian's archive. */
const HELLO = { name: 'hello', version: '2.10', suite: 'trixie' } as const;

/** The machine that the demo builds on. */
const DEMO_MACHINE = 'linux_debian_13-gcc_14';

export interface DemoOptions {
  readonly work: string;
  readonly firmware: Exclude<Firmware, 'direct'>;
  readonly memoryMiB: number;
  readonly signal: AbortSignal;
  /** `cli/main.ts`: the demo gives its task with `buildos submit`, like anybody. */
  readonly cli: string;
}

/** Gets lines of progress: the last one is what is going on. */
export type Say = (line: string) => void;

/** A step of the demo; `run` gives a line that says what came of it. */
export interface DemoStep {
  readonly title: string;
  readonly run: (say: Say) => Promise<string>;
}

/** What a step leaves to the ones after it. */
interface Found {
  mirror?: string;
  image?: BuiltImage;
  machineDisk?: string;
  /** Of the package that is built; its path is below the lab's URL. */
  source?: { readonly path: string; readonly sha256: string };
  accelerator?: Accelerator;
  lab?: Lab;
  guest?: Guest;
  firstStatus?: StatusReading | undefined;
  task?: TaskView;
  log?: DemoOutcome['log'];
  nextImage?: BuiltImage;
  lastStatus?: StatusReading;
}

/** Limits for what is waited for; generous for two busy cores without KVM. */
const LIMITS = { bootMs: 300_000, toolchainMs: 600_000, taskMs: 1_200_000, rebootMs: 600_000 } as const;

/** A demo that has not begun. Disposing it ends the host and the lab. */
export class Demo implements AsyncDisposable {
  readonly #options: DemoOptions;
  readonly #folder: string;
  readonly #found: Found = {};
  /** Work that goes on beside a step; ends with the demo. */
  readonly #ended = new AbortController();
  #machine: Promise<CreatedMachine> | undefined;
  #next: Promise<BuiltImage> | undefined;

  constructor(options: DemoOptions) {
    this.#options = options;
    this.#folder = join(resolve(options.work), 'demo');
  }

  /** In order; one after the other. */
  get steps(): readonly DemoStep[] {
    return [
      { title: 'Build the image of the build host', run: (say) => this.#buildImage(say) },
      { title: `Make the build machine ${DEMO_MACHINE}`, run: (say) => this.#makeMachine(say) },
      { title: 'Publish the toolchain and the sources', run: (say) => this.#publishSources(say) },
      { title: 'Boot a diskless host over PXE', run: (say) => this.#boot(say) },
      { title: 'Bootstrap the toolchain, start the agent', run: (say) => this.#bootstrap(say) },
      { title: `Build ${HELLO.name} ${HELLO.version}, its log read over TFTP`, run: (say) => this.#buildPackage(say) },
      { title: 'Publish a new image; the host reboots into it', run: (say) => this.#update(say) },
    ];
  }

  /** How to reach the host while it runs, as lines for a person. */
  describeAccess(): readonly string[] {
    const { lab, guest } = this.#found;
    if (lab === undefined || guest === undefined) return [];
    const inside = `ip netns exec ${lab.namespace}`;
    const host = lab.port().address;
    return [
      `console      socat -,rawer,escape=0x1d UNIX-CONNECT:${guest.sockets.console}   (Ctrl-] leaves)`,
      `status       ${inside} curl tftp://${host}/status.json`,
      `any file     ${inside} ./buildos tftp get ${host} status.json`,
      `controller   ${inside} curl '${lab.controllerUrl ?? ''}/?tasks'`,
      `all of it    the namespace is ${lab.namespace}; the host is ${host}, the lab ${LAB_ADDRESS}`,
    ];
  }

  /** Lets a person have the console. */
  releaseConsole(): void {
    this.#found.guest?.releaseConsole();
  }

  /** Writes the boot charts. @throws {DemoError} when not all steps have been run */
  async outcome(): Promise<DemoOutcome> {
    const { image, nextImage, accelerator, lab, guest, task, log } = this.#found;
    if (!image || !nextImage || !accelerator || !lab || !guest || !task || !log) throw this.#early();
    return await writeOutcome({
      folder: this.#folder,
      firmware: this.#options.firmware,
      accelerator,
      lab,
      guest,
      before: { image, status: this.#found.firstStatus },
      after: { image: nextImage, status: this.#found.lastStatus },
      task,
      log,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort();
    await Promise.allSettled([this.#machine, this.#next]);
    await this.#found.guest?.close();
    await this.#found.lab?.close();
  }

  async #buildImage(say: Say): Promise<string> {
    // Image and machine need nothing of each other, and mostly one core each.
    this.#machine = beside(this.#createMachine());
    const image = await this.#build('', say);
    this.#found.image = image;
    const { kernel, initrd } = image.sizes;
    return `${image.buildId.slice(0, 8)}, kernel ${mebibytes(kernel)}, initrd ${mebibytes(initrd)}`;
  }

  async #createMachine(): Promise<CreatedMachine> {
    const mirror = await this.#mirror();
    return await createMachine({ name: DEMO_MACHINE, work: resolve(this.#options.work), mirror, signal: this.#signal });
  }

  async #makeMachine(say: Say): Promise<string> {
    if (this.#machine === undefined) throw this.#early();
    say('begun beside the image');
    const machine = await this.#machine;
    this.#found.machineDisk = machine.disk;
    return `on ${basename(machine.disk)}, a btrfs disk labelled buildos.machines`;
  }

  async #publishSources(say: Say): Promise<string> {
    const { signal, work } = this.#options;
    const local = openLocal();
    const where = { mirror: await this.#mirror(), cache: join(resolve(work), 'cache/sources'), signal };
    await mkdir(where.cache, { recursive: true });
    say('bmake, from Debian’s source archive');
    const bmake = await fetchSourceArchive(local, { ...BMAKE, ...where });
    say('hello, from Debian’s source archive');
    const hello = await fetchSourceArchive(local, { ...HELLO, ...where });
    await rm(join(this.#folder, 'www'), { recursive: true, force: true });
    const sources = join(this.#folder, 'www/sources');
    await mkdir(sources, { recursive: true });
    await copyFile(hello.path, join(sources, basename(hello.path)));
    say('the agent, from this checkout');
    const files = await publishBmake(join(this.#folder, 'www/toolchain'), bmake.path);
    this.#found.source = { path: `sources/${basename(hello.path)}`, sha256: hello.sha256 };
    return `${files.length} files, and ${basename(hello.path)}`;
  }

  async #boot(say: Say): Promise<string> {
    const { image, machineDisk } = this.#found;
    if (!image || machineDisk === undefined) throw this.#early();
    say('looking whether KVM works');
    const accelerator = await findAccelerator(image.kernel);
    this.#found.accelerator = accelerator;
    const www = join(this.#folder, 'www');
    const controller = join(this.#folder, 'controller');
    await rm(controller, { recursive: true, force: true });
    await mkdir(controller, { recursive: true });
    const lab = await openLab({
      httpFolder: www,
      controllerFolder: controller,
      bootScript: `#!ipxe\nchain --autofree http://${LAB_ADDRESS}/image/boot.ipxe\n`,
    });
    this.#found.lab = lab;
    await this.#publish(image, lab);
    const state = join(this.#folder, 'state.img');
    await makeStateDisk(openLocal(), state);
    const guest = await Guest.start({
      name: 'build-host',
      firmware: this.#options.firmware,
      accelerator,
      memoryMiB: this.#options.memoryMiB,
      disks: [
        // The machines stay as they were made, however this demo ends; the state is the host's own.
        { file: machineDisk, format: 'raw', snapshot: true },
        { file: state, format: 'raw' },
      ],
      network: lab.network(),
      folder: this.#folder,
    });
    this.#found.guest = guest;
    const stop = guest.log.listen((event) => event.source === 'console' && say(event.line));
    try {
      const status = await this.#waitForStatus('the monitor', () => true, { timeoutMs: LIMITS.bootMs });
      const seconds = (Date.now() - guest.startedAtMs) / 1000;
      return `${this.#options.firmware}, ${accelerator}: monitor up after ${seconds.toFixed(0)} s (${status.state})`;
    } finally {
      stop();
    }
  }

  async #bootstrap(say: Say): Promise<string> {
    // The image for the update is built meanwhile: the host has one core to itself all the same.
    this.#next = beside(this.#build('changed by the demo', () => {}));
    const status = await this.#waitForStatus(
      'agent ready',
      ({ toolchains, events }) => {
        const broken = Object.entries(toolchains).find(([, toolchain]) => toolchain.state === 'failed');
        if (broken !== undefined) {
          throw new DemoError(`Toolchain ${broken[0]}: ${broken[1].error ?? 'failed'}`, broken[1].hint ?? this.#hint());
        }
        return events.some((event) => event.name.startsWith('agent-ready'));
      },
      { timeoutMs: LIMITS.toolchainMs, onStatus: ({ status: line }) => say(line) },
    );
    return status.status;
  }

  async #buildPackage(say: Say): Promise<string> {
    const { lab, source } = this.#found;
    if (!lab || !source || lab.controllerUrl === undefined) throw this.#early();
    const { task, log, readsWhileRunning } = await runTask(
      {
        lab,
        controllerUrl: lab.controllerUrl,
        cli: this.#options.cli,
        task: {
          '--name': HELLO.name,
          '--version': HELLO.version,
          '--source': `${lab.url}/${source.path}`,
          '--sha256': source.sha256,
          '--machine': DEMO_MACHINE,
          '--timeout': String(LIMITS.taskMs / 1000),
        },
        timeoutMs: LIMITS.taskMs,
        signal: this.#options.signal,
        folder: this.#folder,
        hint: this.#hint(),
      },
      say,
    );
    this.#found.task = task;
    const file = join(this.#folder, 'build.log');
    await writeFile(file, log);
    this.#found.log = { file, readsWhileRunning, bytes: Buffer.byteLength(log) };
    // The host says a moment later than the controller that the result is delivered; the chart is to show it.
    this.#found.firstStatus = await this.#waitForStatus(
      'the result in the status',
      ({ events }) => events.some(({ name }) => name === 'result'),
      { timeoutMs: 60_000 },
    );
    const operations = task.operations.map(({ operation, status }) => `${operation} ${status}`).join(', ');
    return `${task.status}: ${operations}; log read ${readsWhileRunning} times while it grew`;
  }

  async #update(say: Say): Promise<string> {
    const { lab, guest, image } = this.#found;
    if (!lab || !guest || !image || !this.#next) throw this.#early();
    const next = await this.#next;
    if (next.buildId === image.buildId) throw new DemoError('The changed image has the same build id', this.#hint());
    this.#found.nextImage = next;
    const publishedAtMs = Date.now();
    await this.#publish(next, lab);
    say(`published ${next.buildId.slice(0, 8)}`);
    const status = await this.#waitForStatus(
      `the host on image ${next.buildId.slice(0, 8)}`,
      // Its monitor runs; that it bootstraps its toolchain again has been seen.
      ({ buildId }) => buildId === next.buildId,
      { timeoutMs: LIMITS.rebootMs, onStatus: ({ status: line }) => say(line) },
    );
    this.#found.lastStatus = status;
    const seconds = ((Date.now() - publishedAtMs) / 1000).toFixed(0);
    return `${image.buildId.slice(0, 8)} → ${next.buildId.slice(0, 8)}, back ${seconds} s after it was published`;
  }

  async #build(note: string, say: Say): Promise<BuiltImage> {
    const { work } = this.#options;
    const signal = this.#signal;
    const options = { definition: buildHost, work, note, signal, mirror: await this.#mirror(), onProgress: say };
    return (await buildImage(options)).image;
  }

  async #publish(image: BuiltImage, lab: Lab): Promise<void> {
    await publishImage({
      image,
      into: join(this.#folder, 'www/image'),
      url: `${lab.url}/image`,
      kernelArgs: ['console=ttyS0', ...acceleratorArgs(this.#found.accelerator ?? 'kvm')],
      options: {
        toolchain_url: `${lab.url}/toolchain/${TOOLCHAIN_LIST}`,
        controller_url: lab.controllerUrl ?? '',
        instances: '1',
        monitor_interval: '5',
      },
    });
  }

  #waitForStatus(
    what: string,
    wants: (status: StatusReading) => boolean,
    options: { readonly timeoutMs: number; readonly onStatus?: (status: StatusReading) => void },
  ): Promise<StatusReading> {
    const { lab, guest } = this.#found;
    if (!lab || !guest) throw this.#early();
    return guest.whileRunning(what, (ended) =>
      waitForStatus(lab, wants, { ...options, what, signal: AbortSignal.any([this.#options.signal, ended]) }),
    );
  }

  async #mirror(): Promise<string> {
    this.#found.mirror ??= await findMirror(openLocal());
    return this.#found.mirror;
  }

  get #signal(): AbortSignal {
    return AbortSignal.any([this.#options.signal, this.#ended.signal]);
  }

  #hint(): string {
    return `the host's console is in ${join(this.#folder, 'console.log')}`;
  }

  #early(): DemoError {
    return new DemoError('A step of the demo was run before the ones it stands on', 'run the steps in order');
  }
}

/** Lets work go on unobserved for a while: who needs it awaits it, and learns then that it failed. */
function beside<T>(work: Promise<T>): Promise<T> {
  work.catch(() => {});
  return work;
}

const mebibytes = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(0)} MiB`;
