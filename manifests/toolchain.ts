/**
 * `toolchain.json`, a file of a toolchain: how the toolchain is bootstrapped and which file is the agent package.
 *
 * In all values `{files}` stands for the directory of the toolchain's files and `{prefix}` for where it is installed.
 */
import * as z from 'zod';
import { findPathProblem } from './_sums.ts';
import { parseJson } from './_json.ts';
import type { ParseOptions } from './manifest.ts';

/** Variables for a process: names as in the shell. */
export type Environment = Readonly<Record<string, string>>;

export interface ToolchainJson {
  readonly bootstrap: {
    /** Program and arguments; at least the program. */
    readonly command: readonly string[];
    readonly timeLimitSeconds: number;
    /** Files that must be there after success, relative to `{prefix}`. */
    readonly leaves: readonly string[];
    readonly environment: Environment;
  };
  /** The agent package (a tar), relative to `{files}`. */
  readonly agent: string;
  readonly machine: {
    /** For the jobs inside machines. */
    readonly environment: Environment;
  };
}

/** The name under which a toolchain list brings it. */
export const TOOLCHAIN_JSON = 'toolchain.json';

const text = z
  .string()
  .min(1)
  .refine((value) => !value.includes('\0'), 'must not hold a NUL');

const relativePath = text.superRefine((value, context) => {
  const problem = findPathProblem(value);
  if (problem !== undefined) context.addIssue({ code: 'custom', message: `the file name ${problem}` });
});

const environment = z
  .record(
    z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'must be the name of a variable'),
    z.string().refine((value) => !value.includes('\0'), 'must not hold a NUL'),
  )
  .default({});

const schema: z.ZodType<ToolchainJson> = z.strictObject({
  bootstrap: z.strictObject({
    command: z.array(text).min(1),
    timeLimitSeconds: z
      .int()
      .min(1)
      .max(24 * 3600)
      .default(900),
    leaves: z.array(relativePath).default([]),
    environment,
  }),
  agent: relativePath,
  machine: z.strictObject({ environment }).default({ environment: {} }),
});

/** Reads `toolchain.json`; unknown keys are refused, so that a mistyped one is noticed. @throws {ManifestError} */
export function parseToolchainJson(json: string, options: ParseOptions = {}): ToolchainJson {
  return parseJson(json, schema, options.name ?? TOOLCHAIN_JSON);
}

export function formatToolchainJson(toolchain: ToolchainJson): string {
  return `${JSON.stringify(toolchain, undefined, 2)}\n`;
}

/**
 * Puts the directories in the place of `{files}` and `{prefix}`.
 *
 * @param value - one word of the command, or the value of a variable
 */
export function fillIn(value: string, directories: { readonly files: string; readonly prefix: string }): string {
  return value.replaceAll(/\{(files|prefix)\}/g, (_all, name: string) =>
    name === 'files' ? directories.files : directories.prefix,
  );
}
