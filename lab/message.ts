/**
 * What the lab's inner process (main.ts, inside the namespace) is told and tells: a configuration file, and JSON lines.
 */
import { z } from 'zod';
import type { LabEvent } from './event.ts';

export interface LabConfig {
  readonly address: string;
  /** Served over TFTP, port 69. */
  readonly tftpFolder: string;
  /** Served over HTTP, port 80. */
  readonly httpFolder: string;
  readonly controller?: { readonly folder: string; readonly port: number };
}

/** Everything listens. */
export interface LabReady {
  readonly source: 'ready';
  readonly httpUrl: string;
  readonly controllerUrl?: string;
}

/** A line of the inner process. `ready` comes once. */
export type LabMessage = Exclude<LabEvent, { source: 'dhcp' }> | LabReady;

const configSchema: z.ZodType<LabConfig> = z.object({
  address: z.string(),
  tftpFolder: z.string(),
  httpFolder: z.string(),
  controller: z.object({ folder: z.string(), port: z.number() }).exactOptional(),
});

const transfer = { atMs: z.number(), durationMs: z.number(), peer: z.string(), bytes: z.number() };

const messageSchema: z.ZodType<LabMessage> = z.discriminatedUnion('source', [
  z.object({
    source: z.literal('tftp'),
    ...transfer,
    name: z.string(),
    result: z.enum(['done', 'failed']),
    error: z.string().exactOptional(),
  }),
  z.object({
    source: z.literal('http'),
    ...transfer,
    method: z.string(),
    path: z.string(),
    status: z.number(),
    complete: z.boolean(),
  }),
  z.object({ source: z.literal('controller'), atMs: z.number(), line: z.string() }),
  z.object({ source: z.literal('problem'), atMs: z.number(), message: z.string() }),
  z.object({ source: z.literal('ready'), httpUrl: z.string(), controllerUrl: z.string().exactOptional() }),
]);

/** @throws when the text is no configuration: the two ends are of one version, so that is a defect */
export function parseLabConfig(text: string): LabConfig {
  return configSchema.parse(JSON.parse(text));
}

/** @throws when the line is no message, which is a defect too */
export function parseLabMessage(line: string): LabMessage {
  return messageSchema.parse(JSON.parse(line));
}
