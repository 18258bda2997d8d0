/**
 * A toolchain and a package that take no time: for tests of what happens around a build, not in it. The demo builds the real ones.
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { create } from 'tar';
import { publishToolchain } from '../../toolchains/publish.ts';

/** How a toolchain of the tests bootstraps. */
export type Bootstrap = 'works' | 'fails' | 'never-ends' | 'wrong-checksum';

const SCRIPTS: Readonly<Record<Bootstrap, string>> = {
  // The host's compiler works, with its headers; then the make of the machine under the name that a bootstrapped one would have.
  works:
    "printf '#include <%s>\\n' signal.h stdio.h pthread.h sys/param.h linux/limits.h >tool.c\n" +
    'echo \'int main(void) { return puts("compiled") < 0; }\' >>tool.c && cc -o tool tool.c && ./tool || exit 1\n' +
    'mkdir -p "$2/bin" && printf \'#!/bin/sh\\nexec /usr/bin/make "$@"\\n\' >"$2/bin/make" && chmod 755 "$2/bin/make"\n',
  fails: 'echo "cc: no such compiler" >&2\nexit 3\n',
  'never-ends': 'echo "working"\nsleep 100000\n',
  'wrong-checksum': 'exit 0\n',
};

/** Publishes a toolchain with our agent in it; the list is `<folder>/toolchain.sha256`. */
export async function publishTestToolchain(folder: string, how: Bootstrap): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'bootstrap.sh'), SCRIPTS[how]);
  await publishToolchain(folder, {
    version: `test-${how}`,
    files: ['bootstrap.sh'],
    bootstrap: {
      command: ['sh', '{files}/bootstrap.sh', '{files}', '{prefix}'],
      timeLimitSeconds: how === 'never-ends' ? 5 : 120,
      leaves: how === 'works' ? ['bin/make'] : [],
      environment: {},
    },
    machine: { environment: { MAKE: '{prefix}/bin/make' } },
  });
  if (how === 'wrong-checksum') await writeFile(join(folder, 'bootstrap.sh'), 'exit 0 # altered after it was listed\n');
}

/**
 * A source archive whose `configure` waits for SECONDS (of the environment) and says so each second.
 *
 * @returns its path and SHA-256
 */
export async function packTestPackage(folder: string): Promise<{ readonly file: string; readonly sha256: string }> {
  const scratch = await mkdtemp(join(tmpdir(), 'buildos-package-'));
  try {
    const top = join(scratch, 'waiting-1.0');
    await mkdir(top);
    const configure = [
      '#!/bin/sh',
      'echo "waiting ${SECONDS_TO_WAIT:-1} s"',
      'n=0; while [ "$n" -lt "${SECONDS_TO_WAIT:-1}" ]; do sleep 1; n=$((n + 1)); echo "second $n"; done',
      "printf 'all:\\n\\ttrue\\ncheck:\\n\\ttrue\\ninstall:\\n\\tmkdir -p $(DESTDIR)/usr/local && echo built >$(DESTDIR)/usr/local/waiting\\n' >Makefile",
      '',
    ].join('\n');
    await writeFile(join(top, 'configure'), configure, { mode: 0o755 });
    const file = join(folder, 'waiting_1.0.orig.tar.gz');
    await mkdir(folder, { recursive: true });
    await create({ file, cwd: scratch, gzip: true }, [basename(top)]);
    return { file, sha256: await sha256Of(file) };
  } finally {
    await rm(scratch, { recursive: true });
  }
}

async function sha256Of(file: string): Promise<string> {
  return createHash('sha256')
    .update(new Uint8Array(await readFile(file)))
    .digest('hex');
}
