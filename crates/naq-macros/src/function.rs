//! The annotated function, checked: which parameters are injected, which are arguments, and the shape of what it returns.
//!
//! Invariant: decides by names alone (a macro sees no types). Where a name could mislead, the generated code checks the
//! guess against the type.

use proc_macro2::Span;
use syn::{
    Error, FnArg, GenericArgument, Ident, ItemFn, Pat, PathArguments, Result, ReturnType, Type, TypePath,
    ext::IdentExt as _, spanned::Spanned,
};

/// One parameter.
pub(crate) struct Param {
    /// As the function names it.
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) source: Source,
}

/// Where a parameter's value comes from.
pub(crate) enum Source {
    /// The job's arguments, under this name.
    Argument(String),
    /// The worker.
    Injected,
    /// The worker, given by reference.
    InjectedRef,
}

/// The shape of a return type, with the type of the value.
pub(crate) enum Returns {
    Unit,
    Plain(Type),
    Result(Type),
    Outcome(Type),
    ResultOfOutcome(Type),
}

/// A function that can be a job.
pub(crate) struct JobFn {
    pub(crate) item: ItemFn,
    pub(crate) params: Vec<Param>,
    pub(crate) returns: Returns,
}

impl JobFn {
    pub(crate) fn new(item: ItemFn) -> Result<Self> {
        check_signature(&item)?;
        let mut params = Vec::new();
        let mut errors: Option<Error> = None;
        for input in &item.sig.inputs {
            match param(input) {
                Ok(param) => params.push(param),
                Err(error) => match &mut errors {
                    Some(all) => all.combine(error),
                    None => errors = Some(error),
                },
            }
        }
        if let Some(errors) = errors {
            return Err(errors);
        }
        let returns = returns(&item.sig.output)?;
        Ok(Self { item, params, returns })
    }

    /// The parameters that are the job's arguments, with their names.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = (&Param, &str)> {
        self.params.iter().filter_map(|param| match &param.source {
            Source::Argument(name) => Some((param, name.as_str())),
            Source::Injected | Source::InjectedRef => None,
        })
    }
}

fn check_signature(item: &ItemFn) -> Result<()> {
    let sig = &item.sig;
    let refuse = |span: Span, message: &str| Err(Error::new(span, message));
    if let Some(FnArg::Receiver(receiver)) = sig.inputs.first() {
        return refuse(
            receiver.span(),
            "a job is a free function: move it out of the impl; what `self` gave can come as a `State<T>` parameter",
        );
    }
    if !sig.generics.params.is_empty() || sig.generics.where_clause.is_some() {
        return refuse(
            if sig.generics.params.is_empty() { sig.generics.where_clause.span() } else { sig.generics.params.span() },
            "a job cannot be generic: one kind has one handler; write concrete, owned types (and one job per type)",
        );
    }
    if let Some(token) = &sig.constness {
        return refuse(token.span(), "a job cannot be a `const fn`");
    }
    if let Some(token) = &sig.unsafety {
        return refuse(token.span(), "a job cannot be `unsafe`: the worker calls it with whatever the queue holds");
    }
    if let Some(abi) = &sig.abi {
        return refuse(abi.span(), "a job is a plain Rust function");
    }
    if let Some(variadic) = &sig.variadic {
        return refuse(variadic.span(), "a job has a fixed list of parameters");
    }
    Ok(())
}

fn param(input: &FnArg) -> Result<Param> {
    let FnArg::Typed(typed) = input else {
        return Err(Error::new(input.span(), "a job is a free function"));
    };
    let Pat::Ident(pattern) = &*typed.pat else {
        return Err(Error::new(
            typed.pat.span(),
            "give the parameter a plain name: it is the argument's name in the job; take it apart in the body",
        ));
    };
    if pattern.by_ref.is_some() || pattern.subpat.is_some() {
        return Err(Error::new(
            pattern.span(),
            "give the parameter a plain name: it is the argument's name in the job",
        ));
    }
    let source = source(&typed.ty, &pattern.ident)?;
    Ok(Param { ident: pattern.ident.clone(), ty: injected_type(&typed.ty), source })
}

/// A reference to an injected type stands for the type.
fn injected_type(ty: &Type) -> Type {
    match ty {
        Type::Reference(reference) => (*reference.elem).clone(),
        other => other.clone(),
    }
}

fn source(ty: &Type, name: &Ident) -> Result<Source> {
    match ty {
        Type::Reference(reference) if reference.mutability.is_none() && is_injected(&reference.elem) => {
            Ok(Source::InjectedRef)
        }
        Type::Reference(reference) => {
            let hint = match &*reference.elem {
                Type::Path(path) if path.path.is_ident("str") => "`String`",
                Type::Slice(_) => "a `Vec`",
                _ => "an owned type",
            };
            let message = format!("an argument comes from outside and cannot be borrowed: write {hint}");
            Err(Error::new(reference.span(), message))
        }
        Type::ImplTrait(it) => Err(Error::new(
            it.span(),
            "a job cannot be generic: one kind has one handler; write a concrete, owned type",
        )),
        other if is_injected(other) => Ok(Source::Injected),
        other => {
            refuse_lifetimes(other)?;
            Ok(Source::Argument(name.unraw().to_string()))
        }
    }
}

/// `JobContext`, `CancellationToken`, `State<T>`, under any path.
fn is_injected(ty: &Type) -> bool {
    let Some(last) = last_segment(ty) else { return false };
    match last.ident.to_string().as_str() {
        "JobContext" | "CancellationToken" => last.arguments.is_empty(),
        "State" => type_arguments(last).len() == 1,
        _ => false,
    }
}

fn refuse_lifetimes(ty: &Type) -> Result<()> {
    let Some(last) = last_segment(ty) else { return Ok(()) };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return Ok(()) };
    for argument in &arguments.args {
        match argument {
            GenericArgument::Lifetime(lifetime) if lifetime.ident != "static" => {
                return Err(Error::new(lifetime.span(), "an argument comes from outside and must own its data"));
            }
            GenericArgument::Type(Type::Reference(reference)) => {
                return Err(Error::new(reference.span(), "an argument comes from outside and must own its data"));
            }
            GenericArgument::Type(inner) => refuse_lifetimes(inner)?,
            _ => {}
        }
    }
    Ok(())
}

fn returns(output: &ReturnType) -> Result<Returns> {
    let ReturnType::Type(_, ty) = output else { return Ok(Returns::Unit) };
    let ty = (**ty).clone();
    if let Type::ImplTrait(it) = &ty {
        return Err(Error::new(it.span(), "a job's result needs a named type, so that `.result()` can read it"));
    }
    if let Type::Reference(reference) = &ty {
        return Err(Error::new(reference.span(), "a job's result must own its data"));
    }
    let Some(last) = last_segment(&ty) else { return Ok(Returns::Plain(ty)) };
    Ok(match last.ident.to_string().as_str() {
        "Outcome" => Returns::Outcome(ty),
        "Result" => {
            let arguments = type_arguments(last);
            let of_outcome = arguments.first().and_then(|t| last_segment(t)).is_some_and(|s| s.ident == "Outcome");
            if of_outcome { Returns::ResultOfOutcome(ty) } else { Returns::Result(ty) }
        }
        _ => Returns::Plain(ty),
    })
}

fn last_segment(ty: &Type) -> Option<&syn::PathSegment> {
    match ty {
        Type::Path(TypePath { path, .. }) => path.segments.last(),
        Type::Group(group) => last_segment(&group.elem),
        Type::Paren(paren) => last_segment(&paren.elem),
        _ => None,
    }
}

fn type_arguments(segment: &syn::PathSegment) -> Vec<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return Vec::new() };
    arguments
        .args
        .iter()
        .filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })
        .collect()
}
