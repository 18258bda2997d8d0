/**
 * /run/buildos/host.json: what init learned from the kernel command line and how long it took. Written once per boot by
 * init as root, mode 0644; read by the monitor, the agents and the helper. Not a place for secrets.
 */
import * as z from 'zod';
import type { HostOptions, OptionProblem } from './kernel-cmdline.ts';

/** One step of stage 1, in ms since the kernel started (CLOCK_BOOTTIME). */
export interface BootStep {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

/** The content of the file. */
export interface HostJson {
  readonly buildId: string;
  readonly options: HostOptions;
  readonly problems: readonly OptionProblem[];
  readonly boot: { readonly steps: readonly BootStep[] };
}

/** Where the file is on a running host. */
export const HOST_JSON = '/run/buildos/host.json';

/** The text is no host.json of this version; `hint` says what to look at. */
export class HostJsonError extends Error {
  override readonly name = 'HostJsonError';
  readonly hint: string = `${HOST_JSON} is written by init at boot: look at the console log, or boot again`;
}

/**
 * Reads the content of {@link HOST_JSON}. Unknown names are dropped, so that an older reader understands a newer init.
 *
 * @throws {HostJsonError} when it is no JSON or lacks something
 */
export function parseHostJson(content: string): HostJson {
  let data: unknown;
  try {
    data = JSON.parse(content);
  } catch (error) {
    throw new HostJsonError(`Cannot read ${HOST_JSON}: not JSON`, { cause: error });
  }
  const result = hostSchema().safeParse(data);
  if (!result.success) {
    throw new HostJsonError(`Cannot read ${HOST_JSON}: ${z.prettifyError(result.error)}`, { cause: result.error });
  }
  return result.data;
}

/** The text of {@link HOST_JSON}: indented, with a final newline. */
export function formatHostJson(host: HostJson): string {
  return `${JSON.stringify(host, undefined, 2)}\n`;
}

/** A function, not a constant: init writes the file without reading it, and its bundle then holds no zod. */
function hostSchema(): z.ZodType<HostJson> {
  const text = z.string().exactOptional();
  const count = z.int().positive().exactOptional();
  const toolchain = z.object({
    url: text,
    trust: text,
    controllers: z.array(z.object({ priority: z.string(), url: z.string() })),
    controllerTrust: z.array(z.string()),
    instances: count,
    ncpu: count,
    ramMiB: count,
    interactive: z.enum(['false', 'true', 'both']),
  });
  return z.object({
    buildId: z.string().min(1),
    options: z.object({
      buildidUrl: text,
      buildidTrust: text,
      toolchains: z.record(z.string(), toolchain),
      configUrl: text,
      configTrust: text,
      monitorIntervalSeconds: z.int().positive(),
      tftpSizeMiB: count,
      smtpRelay: text,
      adminEmail: text,
      sshKeys: z.array(z.string()),
      hostname: text,
      initDebug: z.boolean(),
      initShell: z.boolean(),
    }),
    problems: z.array(z.object({ name: z.string(), value: text, message: z.string(), hint: text })),
    boot: z.object({ steps: z.array(z.object({ name: z.string(), startMs: z.number(), endMs: z.number() })) }),
  });
}
