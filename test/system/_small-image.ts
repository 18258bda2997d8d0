/**
 * An image as small as it can be, made by the whole pipeline: it does not boot; everything else about it is real. A build
 * from nothing takes 6 s of CPU, most of it dpkg's.
 */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildImage, type BuildOptions, type BuildResult } from '../../image/build.ts';
import { writeLock } from '../../image/lock.ts';
import type { Hardware } from '../../image/module-classes.ts';
import { sourceOf } from '../../properties/file.ts';
import { smallHost, type SmallInputs } from './_small-host.ts';
import { chooseDebian, smallLock } from './_small-packages.ts';

/** The demo's and the other tests' cache: what has been downloaded once serves all. */
const CACHE = join(import.meta.dirname, '../../work/cache');

/** What may be changed about the image. */
export interface Inputs extends Omit<SmallInputs, 'program'> {
  /** Bytes of a file of this machine: a program. */
  readonly program: string;
  readonly hardware: Hardware;
}

export const INPUTS: Inputs = {
  first: 'first\n',
  text: 'hello\n',
  program: 'console.log(1);\n',
  user: false,
  data: '1',
  exclude: false,
  hardware: 'vm',
  note: '',
};

/** A folder with what all builds of a test share: packages, and Node packed for stage 1. Removed when disposed. */
export interface SmallImage extends AsyncDisposable {
  readonly folder: string;
  build(work: string, inputs: Inputs, options?: Partial<BuildOptions>): Promise<BuildResult>;
  /** The lock of the host in `_small-host.ts`, for `image build`. */
  readonly lockFile: string;
  /** A work folder where everything is made anew but for what is shared: downloads, and Node. */
  emptyWork(): Promise<string>;
  /** Makes that of a folder. */
  prepareWork(work: string): Promise<void>;
}

/** Fetches the packages and makes those that are made here. */
export async function openSmallImage(): Promise<SmallImage> {
  const folder = await mkdtemp(join(tmpdir(), 'buildos-small-'));
  const debian = await chooseDebian(CACHE);
  const lockFile = join(folder, 'small.lock.json');
  await writeLock(lockFile, smallLock(debian, folder, '1'));
  let works = 0;
  const prepareWork = async (work: string): Promise<void> => {
    await mkdir(join(work, 'cache'), { recursive: true });
    for (const name of ['debs', 'node', 'runtime']) {
      await mkdir(join(CACHE, name), { recursive: true });
      symlinkSync(join(CACHE, name), join(work, 'cache', name));
    }
  };
  return {
    folder,
    lockFile,
    prepareWork,
    build: async (work, inputs, options = {}) => {
      const programs = join(folder, 'programs');
      mkdirSync(programs, { recursive: true });
      const program = join(programs, `${works}.mjs`);
      writeFileSync(program, inputs.program);
      return await buildImage({
        definition: ({ note }) => smallHost({ ...inputs, program: sourceOf(program), note }),
        work,
        lock: { content: smallLock(debian, folder, inputs.data), file: lockFile },
        hardware: inputs.hardware,
        note: inputs.note,
        ...options,
      });
    },
    emptyWork: async () => {
      const work = join(folder, `work-${(works += 1)}`);
      await prepareWork(work);
      return work;
    },
    [Symbol.asyncDispose]: async () => await rm(folder, { recursive: true, force: true }),
  };
}
