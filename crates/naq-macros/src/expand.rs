//! What `#[naq::job]` expands to: the function as written, a type of its name with `job(…)` and `KIND`, a registration.
//!
//! Invariant: the type is an empty enum, because that lives in the type namespace only: the function keeps its name in
//! the value namespace. On an error the function is still emitted, so that the rest of the crate is checked as usual.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Error, Item, ItemFn, Path, Result, ext::IdentExt as _, parse_quote, spanned::Spanned};

use crate::{
    function::{JobFn, Returns, Source},
    options::Options,
};

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(options, item.clone()) {
        Ok(tokens) => tokens,
        Err(error) => {
            let error = error.into_compile_error();
            quote!(#item #error)
        }
    }
}

fn try_expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options: Options = syn::parse2(options)?;
    let function = JobFn::new(function_of(item)?)?;
    if let (Some(blocking), Some(_)) = (&options.blocking, &function.item.sig.asyncness) {
        return Err(Error::new(
            blocking.span(),
            "an `async fn` runs on the async threads; remove `async` to run the function on the blocking pool, or \
             remove `blocking`",
        ));
    }
    if let Some(unique) = &options.unique {
        let names: Vec<&str> = function.arguments().map(|(_, name)| name).collect();
        unique.check(&names)?;
    }
    let krate: Path = match &options.krate {
        Some(path) => path.clone(),
        None => parse_quote!(::naq),
    };
    let private = quote!(#krate::__private);
    let item = &function.item;
    let builder = builder(&function, &options, &private);
    let registration = registration(&function, &private);
    Ok(quote! {
        #item
        #builder
        #registration
    })
}

fn function_of(item: TokenStream) -> Result<ItemFn> {
    let refused = "`#[naq::job]` stands on a function: `async fn send_mail(to: String) -> Result<(), MailError> { … }`";
    // A function in an impl parses as an item, too; its `self` is refused later.
    match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Fn(function)) => Ok(function),
        Ok(other) => Err(Error::new(other.span(), refused)),
        Err(error) => Err(error),
    }
}

/// The type of the job's value.
fn output(function: &JobFn, private: &TokenStream) -> TokenStream {
    match &function.returns {
        Returns::Unit => quote!(()),
        Returns::Plain(ty) => quote!(#ty),
        Returns::Result(ty) => quote_spanned!(ty.span()=> <#ty as #private::IsResult>::Value),
        Returns::Outcome(ty) => quote_spanned!(ty.span()=> <#ty as #private::IsOutcome>::Value),
        Returns::ResultOfOutcome(ty) => {
            quote_spanned!(ty.span()=> <<#ty as #private::IsResult>::Value as #private::IsOutcome>::Value)
        }
    }
}

/// `#[cfg]`s that stand below `#[naq::job]` apply to everything it makes.
fn cfgs(item: &ItemFn) -> Vec<&syn::Attribute> {
    item.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect()
}

fn builder(function: &JobFn, options: &Options, private: &TokenStream) -> TokenStream {
    let (ident, vis) = (&function.item.sig.ident, &function.item.vis);
    let cfgs = cfgs(&function.item);
    let name = ident.unraw().to_string();
    let kind = options.kind.clone().unwrap_or_else(|| name.clone());
    let output = output(function, private);
    let mut params = Vec::new();
    let mut list = quote!(());
    let arguments: Vec<_> = function.arguments().collect();
    for (param, _) in &arguments {
        let (ident, ty) = (&param.ident, &param.ty);
        params.push(quote_spanned!(ty.span()=> #ident: impl #private::IntoArg<#ty>));
    }
    for (param, name) in arguments.iter().rev() {
        let (ident, ty) = (&param.ident, &param.ty);
        list = quote_spanned!(ty.span()=> (#name, #private::argument::<#ty>(#ident), #list));
    }
    let chain = option_calls(options, private);
    let check = match &function.returns {
        Returns::Plain(ty) => value_check(&quote!(#ty), ty.span(), private),
        Returns::Result(ty) => value_check(&output, ty.span(), private),
        Returns::Unit | Returns::Outcome(_) | Returns::ResultOfOutcome(_) => TokenStream::new(),
    };
    let type_doc = format!("The jobs that call the function `{name}`; see `#[naq::job]`.");
    let job_doc = format!("A job that calls `{name}` with these arguments, to be enqueued.");
    quote! {
        #(#cfgs)*
        #[doc = #type_doc]
        #[allow(non_camel_case_types, dead_code, unreachable_pub, reason = "a function's jobs have the function's name")]
        #vis enum #ident {}

        #(#cfgs)*
        #[allow(dead_code, unreachable_pub, clippy::too_many_arguments, reason = "generated beside the function, which decides")]
        impl #ident {
            /// The stable name that these jobs carry.
            #vis const KIND: &'static str = #kind;

            #[doc = #job_doc]
            #vis fn job(#(#params),*) -> #private::NewJob<#output> {
                #check
                #private::NewJob::typed(Self::KIND, #private::NamedArgs(#list)) #chain
            }
        }
    }
}

/// A compile error if a type that was taken for a value is a result under another name.
fn value_check(ty: &TokenStream, span: proc_macro2::Span, private: &TokenStream) -> TokenStream {
    quote_spanned! {span=>
        {
            #[allow(unused_imports, reason = "which of the two is used is the question")]
            use #private::{DisguisedValue as _, PlainValue as _};
            (&&#private::ValueProbe::<#ty>::OF).shape().check::<#ty>();
        }
    }
}

fn option_calls(options: &Options, private: &TokenStream) -> TokenStream {
    let seconds = |d: &std::time::Duration| {
        let (seconds, nanos) = (d.as_secs(), d.subsec_nanos());
        quote!(::core::time::Duration::new(#seconds, #nanos))
    };
    let mut calls = TokenStream::new();
    let mut call = |tokens: TokenStream| calls.extend(tokens);
    if let Some(queue) = &options.queue {
        call(quote!(.queue(#queue)));
    }
    if let Some(priority) = options.priority {
        call(quote!(.priority(#priority)));
    }
    if let Some(retries) = options.max_retries {
        call(quote!(.max_retries(#retries)));
    }
    if let Some(delays) = &options.retry_delay {
        let delays = delays.iter().map(seconds);
        call(quote!(.retry_delays([#(#delays),*])));
    }
    if let Some(variant) = &options.retry_strategy {
        call(quote!(.retry_strategy(#private::RetryStrategy::#variant)));
    }
    if let Some(delay) = options.retry_max_delay.as_ref().map(seconds) {
        call(quote!(.retry_max_delay(#delay)));
    }
    if let Some(share) = options.retry_jitter {
        call(quote!(.retry_jitter(#share)));
    }
    for (list, method) in [(&options.retry_on, "retry_on"), (&options.ignore_on, "ignore_on")] {
        if let Some(types) = list {
            let method = format_ident!("{method}");
            call(quote!(.#method([#(#types),*] as [&str; _])));
        }
    }
    if let Some(timeout) = options.timeout.as_ref().map(seconds) {
        call(quote!(.timeout(#timeout)));
    }
    if let Some(ttl) = options.result_ttl.as_ref().map(seconds) {
        call(quote!(.result_ttl(#ttl)));
    }
    if let Some(unique) = &options.unique {
        call(unique.calls(private));
    }
    calls
}

fn registration(function: &JobFn, private: &TokenStream) -> TokenStream {
    let ident = &function.item.sig.ident;
    let cfgs = cfgs(&function.item);
    let names: Vec<&str> = function.arguments().map(|(_, name)| name).collect();
    let mut reads = Vec::new();
    let mut passed = Vec::new();
    let mut missing = Vec::new();
    let mut position = 0usize;
    for (n, param) in function.params.iter().enumerate() {
        let (ty, local) = (&param.ty, format_ident!("__arg{n}"));
        match &param.source {
            Source::Argument(_) => {
                reads.push(quote_spanned!(ty.span()=> let #local = #private::take::<#ty>(&mut __args, #position)?;));
                position += 1;
            }
            Source::Injected | Source::InjectedRef => {
                reads.push(quote_spanned!(ty.span()=> let #local = #private::inject::<#ty>(&__cx)?;));
                missing.push(
                    quote_spanned!(ty.span()=> .or_else(|| <#ty as #private::FromContext>::missing_from(__states))),
                );
            }
        }
        passed.push(match &param.source {
            Source::InjectedRef => quote!(&#local),
            Source::Argument(_) | Source::Injected => quote!(#local),
        });
    }
    let args = if names.is_empty() {
        quote!(#private::Args::of(__cx.job(), &[])?;)
    } else {
        quote!(let mut __args = #private::Args::of(__cx.job(), &[#(#names),*])?;)
    };
    let verdict = verdict(&function.returns, private);
    let call = if function.item.sig.asyncness.is_some() {
        quote! {
            let __out = #ident(#(#passed),*).await;
            ::core::result::Result::Ok(#verdict)
        }
    } else {
        quote! {
            ::core::result::Result::Ok(#private::run_blocking(move || {
                // Held until the function returns: by it a worker knows that an abandoned run goes on.
                let __cx = __cx;
                let __out = #ident(#(#passed),*);
                #verdict
            }).await)
        }
    };
    quote! {
        #(#cfgs)*
        // The function counts as used also where no worker is linked.
        const _: () = { let _ = #ident; };

        #(#cfgs)*
        #private::register_job! {{
            fn __call(__cx: #private::JobContext) -> #private::HandlerFuture {
                #private::run(async move {
                    #args
                    #(#reads)*
                    #call
                })
            }

            fn __missing_from(__states: &#private::States) -> ::core::option::Option<&'static str> {
                let _ = __states;
                ::core::option::Option::None #(#missing)*
            }

            #private::JobFunction {
                kind: #ident::KIND,
                location: ::core::concat!(::core::file!(), ":", ::core::line!()),
                call: __call,
                missing_from: __missing_from,
            }
        }}
    }
}

/// The expression that turns `__out` into a verdict.
fn verdict(returns: &Returns, private: &TokenStream) -> TokenStream {
    let error: Ident = format_ident!("__error");
    let span = match returns {
        Returns::Result(ty) | Returns::ResultOfOutcome(ty) => ty.span(),
        Returns::Unit | Returns::Plain(_) | Returns::Outcome(_) => proc_macro2::Span::call_site(),
    };
    let failed = quote_spanned! {span=> {
        #[allow(unused_imports, reason = "the error's type decides which one is used")]
        use #private::{ByBox as _, ByDisplay as _, ByError as _, ByItself as _, ByNothing as _};
        let __way = (&&&&&#private::ErrorProbe::of(&#error)).way();
        #private::failed(__way.failure(#error))
    }};
    match returns {
        Returns::Unit => quote!({ let () = __out; #private::complete(&()) }),
        Returns::Plain(ty) => quote_spanned!(ty.span()=> #private::complete::<#ty>(&__out)),
        Returns::Outcome(ty) => quote_spanned!(ty.span()=> #private::outcome(__out)),
        Returns::Result(ty) => {
            let complete = quote_spanned!(ty.span()=> #private::complete(&__value));
            quote! {
                match __out {
                    ::core::result::Result::Ok(__value) => #complete,
                    ::core::result::Result::Err(#error) => #failed,
                }
            }
        }
        Returns::ResultOfOutcome(ty) => {
            let outcome = quote_spanned!(ty.span()=> #private::outcome(__value));
            quote! {
                match __out {
                    ::core::result::Result::Ok(__value) => #outcome,
                    ::core::result::Result::Err(#error) => #failed,
                }
            }
        }
    }
}
