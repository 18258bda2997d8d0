/** A root could not be made of its packages. */
export class BootstrapError extends Error {
  override readonly name = 'BootstrapError';
  readonly hint: string;

  constructor(message: string, hint: string, options?: { readonly cause: unknown }) {
    super(message, options);
    this.hint = hint;
  }
}
