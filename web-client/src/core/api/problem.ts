// Errors as the client sees them: RFC 9457 problem documents, and the cases where no answer came at all.

export interface Problem { title?: string; status?: number; detail?: string; code?: string; correlation?: string }

/** `code` is stable and safe to branch on. `network` means that no answer came; `status` is then 0. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly correlation: string | undefined = undefined,
    /** Milliseconds the server asked to wait, from Retry-After. */
    readonly retryAfter: number | undefined = undefined,
  ) {
    super(`${status} ${code}`);
  }

  /** True where the same command may succeed later without any change. */
  get transient(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  static network(): ApiError {
    return new ApiError(0, 'network', '');
  }

  static async from(response: Response): Promise<ApiError> {
    let problem: Problem = {};
    try {
      problem = (await response.json()) as Problem;
    } catch {
      // A proxy's error page carries no problem document; the status says enough.
    }
    const seconds = Number(response.headers.get('retry-after'));
    return new ApiError(
      response.status,
      problem.code ?? `http.${response.status}`,
      problem.detail ?? problem.title ?? '',
      problem.correlation,
      Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : undefined,
    );
  }
}

export function asApiError(error: unknown): ApiError {
  return error instanceof ApiError ? error : new ApiError(0, 'client', error instanceof Error ? error.message : '');
}
